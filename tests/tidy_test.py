"""Which files tools/tidy.py chooses, in a small repository."""
import json
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
import tidy  # noqa: E402

FILES = {"src/a/own.h": "", "src/a/own.cc": '#include "a/own.h"\n', "src/a/alone.h": "", "src/a/user.cc": '#include "a/alone.h"\n',
         "src/a/other_user.cc": '#include "a/alone.h"\n', "src/a/own_test.cc": "", "src/a/not_built.cc": "", "README.md": ""}


@pytest.fixture(name="repository")
def repository_fixture(tmp_path, monkeypatch):
    monkeypatch.setattr(tidy, "ROOT", tmp_path)
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    built = [path for path in FILES if path.endswith(".cc") and "not_built" not in path]
    (tmp_path / "compile_commands.json").write_text(json.dumps([{"file": str(tmp_path / path)} for path in built]))
    (tmp_path / ".gitignore").write_text("compile_commands.json\n")
    git("init", "-q", "-b", "main")
    commit("first")
    return tmp_path


def git(*arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    return subprocess.run(["git", *identity, *arguments], cwd=tidy.ROOT, capture_output=True, text=True, check=True).stdout.strip()


def commit(message):
    git("add", "-A")
    git("commit", "-q", "-m", message)


def chosen(repository, since=""):
    return [path.name for path in tidy.changed(tidy.compiled(repository), tidy.base_commit(since))]


def test_all_that_is_built_but_tests(repository):
    assert [path.name for path in tidy.compiled(repository)] == ["other_user.cc", "own.cc", "user.cc"]


@pytest.mark.parametrize("path, expected", [
    ("src/a/user.cc", ["user.cc"]), ("src/a/own.h", ["own.cc"]), ("src/a/alone.h", ["other_user.cc"]), ("README.md", []), ("src/a/own_test.cc", [])])
def test_a_change_and_what_shows_it(repository, path, expected):
    (repository / path).write_text(FILES[path] + "// changed\n")
    commit("changed")
    assert chosen(repository) == expected
    assert chosen(repository, "HEAD") == []


def test_the_base_is_the_last_tag_else_where_the_branch_left_main(repository):
    first = git("rev-parse", "HEAD")
    git("checkout", "-q", "-b", "work")
    (repository / "src/a/user.cc").write_text("// new\n")
    commit("second")
    (repository / "src/a/own.cc").write_text("// not committed\n")
    assert tidy.base_commit("") == first
    assert chosen(repository) == ["own.cc", "user.cc"]
    git("tag", "v1", first)
    commit("third")
    git("branch", "-f", "main", "HEAD")
    assert tidy.base_commit("") == first
    with pytest.raises(SystemExit):
        tidy.base_commit("nowhere")
