"""The manual page and the completions, which are made from --help: the shells take them, and they complete."""
import shutil
import subprocess

import pytest

from chorus_process import CHORUS, ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("shell")
    subprocess.run([ROOT / "tools" / "make_shell_files.py", CHORUS, made], check=True)
    return made


def bash_completes(folder, *words):
    script = f'source {folder}/chorus.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _chorus; printf "%s\\n" "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True, cwd=folder).stdout.split()


def test_bash_completes_commands_options_and_values(folder):
    assert bash_completes(folder, "chorus", "ge") == ["generate"]
    assert "latency" in bash_completes(folder, "chorus", "bench", "")
    assert "--tensor-parallel-size" in bash_completes(folder, "chorus", "serve", "MODEL", "--tensor")
    assert bash_completes(folder, "chorus", "generate", "--dtype", "b") == ["bfloat16"]
    assert bash_completes(folder, "chorus", "generate", "chorus.f") == ["chorus.fish"]


@pytest.mark.parametrize("shell, name", [("zsh", "_chorus"), ("fish", "chorus.fish")])
def test_the_other_shells_read_theirs(folder, shell, name):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n", folder / name], check=True)


def test_fish_completes(folder):
    if not shutil.which("fish"):
        pytest.skip("no fish here")
    def complete(line):
        command = f"source {folder}/chorus.fish; complete -C '{line}'"
        return subprocess.run(["fish", "--no-config", "-c", command], capture_output=True, text=True, check=True, cwd=folder).stdout
    assert "generate" in complete("chorus gen")
    assert "--tensor-parallel-size" in complete("chorus serve --tensor")


def test_the_manual_page_has_every_command_and_is_roff(folder):
    page = (folder / "chorus.1").read_text()
    for heading in ("GENERATE", "SERVE", "RUN", "BENCH LATENCY", "EXIT STATUS"):
        assert f".SH {heading}\n" in page
    if not shutil.which("man"):
        pytest.skip("no man here")
    shown = subprocess.run(["man", "--warnings", "-l", folder / "chorus.1"], capture_output=True, text=True, check=True, env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin"})
    assert shown.stderr == "" and "--data-parallel-size" in shown.stdout
