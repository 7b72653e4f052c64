"""Runs every command of docs/guide.md, in its order and in one folder, as a user would.

A block of ```sh is a script. One that begins with `chorus serve` is a server, which stays until the next one or the end, and must then end well. Blocks of ```sh make
are targets of the Makefile, which must be there; those of ```sh debian are run by tools/check_deb.py, in a bare Debian."""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

import pytest

from chorus_process import CHORUS, ROOT

GUIDE = ROOT / "docs" / "guide.md"
BLOCK = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def blocks(kind):
    return [text for name, text in BLOCK.findall(GUIDE.read_text(encoding="utf-8")) if name == kind]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Reader:
    """Follows the guide in a folder of its own, at a port of its own."""

    def __init__(self, folder):
        self.folder, self.port, self.server = folder, free_port(), None
        (folder / "bin").mkdir()
        (folder / "bin" / "chorus").symlink_to(pathlib.Path(CHORUS).resolve())
        (folder / "models").symlink_to(ROOT / "models")
        shutil.copytree(ROOT / "examples" / "stories", folder / "examples" / "stories")
        self.environment = dict(os.environ, PATH=f"{folder / 'bin'}:{os.environ['PATH']}", CHORUS_LOG_LEVEL="info")

    def follow(self, script):
        script = script.replace("8000", str(self.port))
        if script.startswith("chorus serve"):
            return self.serve(script.strip() + f" --port {self.port} --shutdown-timeout 5")
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def serve(self, command):
        self.stop()
        self.server = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.server.stdout.readline()
        assert f"http://127.0.0.1:{self.port}" in line, command
        return line

    def stop(self):
        if self.server is None:
            return
        self.server.send_signal(signal.SIGINT)
        assert self.server.wait(timeout=30) == 0
        self.server.stdout.close()
        self.server = None

    def close(self):
        if self.server is not None:
            self.server.kill()
            self.server.wait()


@pytest.fixture
def reader(tmp_path):
    one = Reader(tmp_path)
    yield one
    one.close()


def test_every_command_does_what_it_says(reader):
    shown = {script: reader.follow(script) for script in blocks("sh")}
    reader.stop()
    assert len(shown) >= 12
    completions = next(text for script, text in shown.items() if script.startswith("chorus complete models"))
    first, second = completions[:len(completions) // 2], completions[len(completions) // 2:]
    assert first == second and len(first) > 100  # by an argument, and by a pipe
    assert len((reader.folder / "results.jsonl").read_text().splitlines()) == 2
    for name in ("scaling", "latency", "serve"):
        assert (reader.folder / f"{name}.svg").read_text().startswith("<svg")
    assert (reader.folder / "examples" / "stories" / "out" / "tell_story.jsonl").exists()


def test_every_target_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    scripts = blocks("sh make")
    assert scripts
    for script in scripts:
        for line in script.splitlines():
            assert re.fullmatch(r"make [a-z-]+", line) and re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE), line


def test_no_command_is_of_another_kind():
    assert {name for name, _ in BLOCK.findall(GUIDE.read_text(encoding="utf-8"))} == {"sh", "sh make", "sh debian"}


def test_every_message_is_the_programs():
    """Each part of it, between the `..`, is in a source text."""
    sources = "".join(re.sub(r'"\s*\n\s*"', "", path.read_text(encoding="utf-8")) for path in (ROOT / "src").rglob("*.cc"))
    rows = ROW.findall(GUIDE.read_text(encoding="utf-8"))
    assert len(rows) > 10
    wrong = [part for row in rows for part in re.split(r"\.\.|\d+", row) if part.strip("() ;") and part not in sources]
    assert not wrong
