"""Where a command's output goes, on the real program: one writer at a time, never over the input, each failure with its cause."""
import json
import os
import re
import subprocess

import pytest

from bad_input_test import SMALL, flow, limit_files, lines, refused, started  # noqa: F401 (flow is a fixture)
from chorus_process import CHORUS, STORIES, chorus, other_lines, wait_for_engines


def test_output_in_no_directory(tmp_path):
    done = chorus("generate", STORIES, "--prompt", "a", "--output", tmp_path / "nowhere" / "out.jsonl")
    refused(done, tmp_path / "nowhere" / "out.jsonl", "No such file")
    assert not started(done) and os.listdir(tmp_path) == []


def test_output_is_a_directory(tmp_path):
    refused(chorus("generate", STORIES, "--prompt", "a", "--output", tmp_path), tmp_path, "is a directory")


def test_output_may_not_be_written():
    # /proc takes no new files from anybody, root included.
    done = chorus("generate", STORIES, "--prompt", "a", "--output", "/proc/out.jsonl")
    refused(done, "/proc/out.jsonl", "cannot be written")
    assert not started(done)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_directory_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(chorus("generate", STORIES, "--prompt", "a", "--output", tmp_path / "closed" / "o"), "closed/o", "Permission denied")


def test_a_full_device():
    refused(chorus("generate", STORIES, "--prompt", "a", "--output", "/dev/full"), "/dev/full", "No space left", status=1)


def test_a_full_stdout():
    with open("/dev/full", "wb") as full:
        done = subprocess.run([CHORUS, "generate", STORIES, "--prompt", "a"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1 and "No space left" in other_lines(done.stderr)[0]


def test_a_full_disk(tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_bytes(b"precious")
    rows = [{"id": "x" * 50000, "prompt": "a", "max_tokens": 2} for _ in range(60)]
    done = subprocess.run([CHORUS, "generate", STORIES, *SMALL, "--output", str(output)], input=lines(rows), capture_output=True,
                          timeout=60, preexec_fn=limit_files, check=False)
    refused(done, output, "File too large", "finished rows are kept in", status=1)
    assert output.read_bytes() == b"precious" and sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.jsonl.partial", "out.jsonl.partial.journal"]


@pytest.mark.parametrize("output, words", [
    ("nowhere/out.jsonl", ["No such file", "folder is not there"]),
    ("file/out.jsonl", ["Not a directory", "a file where a folder must be"]),
    ("folder", ["is a directory"]),
])
def test_each_cause_has_its_own_words(tmp_path, output, words):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    done = chorus("generate", STORIES, "--prompt", "a", "--output", tmp_path / output)
    refused(done, tmp_path / output, *words)
    assert b"make room" not in done.stderr and not started(done)


def test_a_closed_stdout():
    done = subprocess.run(["bash", "-c", 'exec "$@" >&-', "-", CHORUS, "generate", STORIES, "--prompt", "a"], capture_output=True, timeout=60, check=False)
    refused(done, "stdout", "closed before the start")


def test_a_closed_stdin():
    done = subprocess.run(["bash", "-c", 'exec "$@" <&-', "-", CHORUS, "generate", STORIES], capture_output=True, timeout=60, check=False)
    refused(done, "stdin line 1: cannot be read")


def long_rows(count=3000):
    return lines([{"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "seed": seed, "temperature": 1} for seed in range(count)])


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_no_file_becomes_a_closed_standard_descriptor(tmp_path, closed):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(long_rows())
    process = subprocess.Popen(["bash", "-c", f'exec "$@" {closed}', "-", CHORUS, "generate", STORIES, "--threads", "1", "--input", source, "--output", output],
                               stderr=subprocess.DEVNULL)
    try:
        engine = wait_for_engines(process, 1)[0]
        for pid in (process.pid, engine):
            assert all(str(tmp_path) not in os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3))
        for number in re.findall("([012])[<>]", closed):
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"
    finally:
        process.kill()
        process.wait()


def test_two_writers_of_one_output(tmp_path):
    """The second is refused at once, whatever it calls the file; the first goes on; a dead one's partial file is no obstacle."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(long_rows())
    first = subprocess.Popen([CHORUS, "generate", STORIES, "--threads", "1", "--input", source, "--output", output], stderr=subprocess.DEVNULL)
    try:
        wait_for_engines(first, 1)
        (tmp_path / "link").symlink_to(tmp_path)
        for name in (output, tmp_path / "link" / "out.jsonl"):
            second = chorus("generate", STORIES, "--prompt", "a", "--output", name)
            refused(second, name, f"another run is writing here (process {first.pid})", status=1)
            assert not started(second)
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    assert (tmp_path / "out.jsonl.partial").exists()
    assert chorus("generate", STORIES, "--prompt", "a", "--max-tokens", "2", "--output", output).returncode == 0
    assert len(output.read_bytes().splitlines()) == 1 and sorted(os.listdir(tmp_path)) == ["in.jsonl", "link", "out.jsonl"]


def test_an_output_that_is_the_input(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_bytes(lines([{"prompt": "a"}]))
    os.link(source, tmp_path / "hard.jsonl")
    before = source.read_bytes()
    for output in (source, tmp_path / "hard.jsonl"):
        refused(chorus("generate", STORIES, "--input", source, "--output", output), output, "is the input", source)
    with open(source, "rb") as stdin:
        done = subprocess.run([CHORUS, "generate", STORIES, "--output", str(source)], stdin=stdin, capture_output=True, timeout=60, check=False)
    refused(done, source, "is the input")
    refused(chorus("bench", "throughput", STORIES, "--input", source, "--output-json", source), source, "is the input")
    assert source.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["hard.jsonl", "in.jsonl"]


def test_a_workflow_that_would_replace_its_own_data(flow):
    flow.data(b'{"id": 1, "hero": "a"}\n')
    (flow.root / "data" / "in.jsonl").rename(flow.root / "data" / "tell.jsonl")
    flow.load["params"]["input_data_path"] = "tell.jsonl"
    flow.whole["output_dir"] = "data"
    refused(flow.run(), "tell.jsonl", "is the input")
    assert (flow.root / "data" / "tell.jsonl").read_bytes() == b'{"id": 1, "hero": "a"}\n'


@pytest.mark.parametrize("name, content", [("tell.jinja", b"Tell of {{ hero }}"), ("tell.txt", b"Tell of {{ hero }}"),
                                           ("w.json", None), ("in.json", b'[{"id": 1, "hero": "Ann"}]')])
def test_a_byte_order_mark_in_any_file_of_a_workflow(flow, name, content):
    flow.tell["params"]["generation_options"]["temperature"] = 0
    flow.data(b'{"id": 1, "hero": "Ann"}\n')
    assert flow.run().returncode == 0
    expected = (flow.root / "out" / "tell.jsonl").read_bytes()
    (flow.root / "out" / "tell.jsonl").unlink()
    if name.startswith("tell"):
        (flow.root / "prompts" / "tell.jinja").unlink()
        (flow.root / "prompts" / name).write_bytes(b"\xef\xbb\xbf" + content)
    elif name == "in.json":
        (flow.root / "data" / name).write_bytes(b"\xef\xbb\xbf" + content)
        flow.load["params"]["input_data_path"] = name
    (flow.root / "w.json").write_bytes((b"\xef\xbb\xbf" if name == "w.json" else b"") + json.dumps(flow.whole).encode())
    done = chorus("run", flow.root / "w.json")
    assert done.returncode == 0, done.stderr
    assert (flow.root / "out" / "tell.jsonl").read_bytes() == expected
