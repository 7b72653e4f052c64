"""`chorus generate` that ends early: the same command goes on after the rows that were finished, and the output is as if nothing had happened."""
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

from chorus_process import CHORUS, STORIES, chorus, gone_within, log_lines, other_lines, wait_for_engines

SMALL = ["--threads", "1", "--kv-cache-memory", "16MiB", "--disable-progress-bars"]
ROWS = 4000


def rows_text(count=ROWS):
    """Each row differs; every 500th is too long for the model and fails."""
    rows = [{"id": f"row {row}", "prompt": f"Number {row} was", "max_tokens": 20 + row % 40, "ignore_eos": True, "temperature": row % 2} for row in range(count)]
    for row in range(0, count, 500):
        rows[row]["prompt"] = "long " * 1000
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Work:
    """One command in a folder of its own."""

    def __init__(self, root, text):
        self.root = root
        root.mkdir(exist_ok=True)
        self.source, self.output = root / "in.jsonl", root / "out.jsonl"
        self.partial, self.journal = root / "out.jsonl.partial", root / "out.jsonl.partial.journal"
        self.source.write_bytes(text)
        self.model, self.options = STORIES, []

    def command(self, *more):
        return ["generate", self.model, *SMALL, "--input", self.source, "--output", self.output, *self.options, *more]

    def start(self, *more, **options):
        return subprocess.Popen([CHORUS, *map(str, self.command(*more))], stderr=subprocess.PIPE, env=dict(os.environ, CHORUS_LOG_LEVEL="info"), **options)

    def recorded(self):
        """Rows that a process which is killed now would keep."""
        try:
            lines = self.journal.read_text().splitlines()
        except OSError:
            return 0
        return json.loads(lines[-1])["rows"] if len(lines) > 1 and lines[-1].endswith("}") else 0

    def wait_for_rows(self, process, more_than, within_s=60):
        deadline = time.monotonic() + within_s
        while self.recorded() <= more_than:
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()
            time.sleep(0.005)

    def cut_off(self, *more, stop=signal.SIGKILL):
        """A run that a signal ends in the middle; what it said, and how many rows it left."""
        process = self.start(*more)
        self.wait_for_rows(process, self.recorded())
        engines = wait_for_engines(process, 2 if "-dp" in self.options else 1)
        process.send_signal(stop)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == (-9 if stop == signal.SIGKILL else 130), errors.decode()
        assert gone_within(engines, 1.0), "an engine outlived its parent"
        assert not self.output.exists() and self.recorded() > 0
        return errors, self.recorded()

    def finish(self, *more):
        done = chorus(*self.command(*more))
        assert done.returncode == 3, done.stderr.decode()
        assert sorted(os.listdir(self.root)) == ["in.jsonl", "out.jsonl"]
        return done


def gone_on_after(done):
    found = [re.search(r"going on after (\d+)( of (\d+))? rows", line) for line in log_lines(done.stderr)]
    found = [int(match.group(1)) for match in found if match]
    return found[0] if found else None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The output of a run that nothing disturbs."""
    work = Work(tmp_path_factory.mktemp("whole") / "work", rows_text())
    done = work.finish()
    assert gone_on_after(done) is None and f"8 of {ROWS} rows failed" in done.stderr.decode()
    return work.output.read_bytes()


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path / "work", rows_text())


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_every_row_that_is_written(work, whole, stop):
    errors, kept = work.cut_off(stop=stop)
    assert other_lines(errors) == [f"chorus: interrupted; {kept} finished rows are kept in {work.partial}: the same command goes on after them"]
    assert work.partial.read_bytes().count(b"\n") == kept and whole.startswith(work.partial.read_bytes())
    done = work.finish()
    assert gone_on_after(done) == kept and f"out.jsonl: going on after {kept} of {ROWS} rows" in done.stderr.decode()
    assert f"8 of {ROWS} rows failed" in done.stderr.decode()
    assert work.output.read_bytes() == whole


def test_the_parent_is_killed_twice(work, whole):
    first, second = work.cut_off()[1], work.cut_off()[1]
    assert 0 < first < second
    assert gone_on_after(work.finish()) == second
    assert work.output.read_bytes() == whole


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.3, 0.9, 1.1, 1.7])
def test_a_kill_at_any_time(work, whole, after_s):
    process = work.start()
    time.sleep(after_s)
    process.kill()
    process.communicate()
    work.finish()
    assert work.output.read_bytes() == whole


@pytest.mark.parametrize("changed", [["-dp", "2"], ["-tp", "2"], ["--max-num-seqs", "3", "--no-enable-prefix-caching", "--max-num-batched-tokens", "64"],
                                     ["-dp", "2", "--assignment", "contiguous"], ["-dp", "2", "--assignment", "priority"], ["-dp", "2", "--assignment", "modulo"]])
def test_what_changes_no_byte_may_change(work, whole, changed):
    kept = work.cut_off()[1]
    assert gone_on_after(work.finish(*changed)) == kept
    assert work.output.read_bytes() == whole


@pytest.mark.parametrize("changed, named", [(["--temperature", "0.5"], "sampling options"), (["--seed", "3"], "seed, sampling options"),
                                            (["--max-model-len", "500"], "max-model-len"), (["--dtype", "float32"], "numerics profile")])
def test_what_changes_bytes_begins_anew(work, changed, named):
    work.cut_off()
    done = work.finish(*changed)
    assert gone_on_after(done) is None
    assert f"{work.partial}: starting anew, since these differ from the run that wrote it: {named}\n" in done.stderr.decode() or named == "numerics profile"
    assert "starting anew" in done.stderr.decode()
    found = work.output.read_bytes()
    work.output.unlink()
    assert gone_on_after(work.finish(*changed)) is None and work.output.read_bytes() == found


def test_a_changed_model_begins_anew(work, tmp_path):
    work.model = tmp_path / "model"
    shutil.copytree(STORIES, work.model)
    work.cut_off()
    os.utime(work.model / "model.safetensors", (1, 1))
    assert "differ from the run that wrote it: model files" in work.finish().stderr.decode()


def test_without_the_partial_file_the_work_begins_anew(work, whole):
    work.cut_off()
    work.partial.unlink()
    assert gone_on_after(work.finish()) is None
    assert work.output.read_bytes() == whole


def test_a_changed_input_keeps_the_rows_before_the_change(work):
    kept = work.cut_off()[1]
    lines = rows_text().splitlines(keepends=True)
    lines[-1] = lines[-1].replace(b"Number", b"Count")
    lines.append(b'{"prompt": "One more"}\n')
    work.source.write_bytes(b"".join(lines))
    assert gone_on_after(work.finish()) == kept
    found = work.output.read_bytes()
    work.output.unlink()
    work.cut_off()
    work.source.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    done = work.finish()
    assert gone_on_after(done) is None and "rows were finished: the input has changed" in done.stderr.decode()
    swapped = work.output.read_bytes().splitlines(keepends=True)
    assert b"".join([swapped[1], swapped[0], *swapped[2:]]) == found


def test_a_bad_row_that_is_put_right(work, whole):
    """Of a pipe nobody knows a bad row before it comes: what was finished by then is kept."""
    def run(text):
        command = [CHORUS, "generate", STORIES, *SMALL, "--output", str(work.output)]
        return subprocess.run(command, input=text, capture_output=True, timeout=120, env=dict(os.environ, CHORUS_LOG_LEVEL="info"), check=False)
    lines = rows_text().splitlines(keepends=True)
    done = run(b"".join([*lines[:-1], b'{"prompt": "a", "max_tokens": 0}\n']))
    assert done.returncode == 2 and len(other_lines(done.stderr)) == 1
    said = other_lines(done.stderr)[0]
    assert f"stdin line {ROWS}: max_tokens is 0" in said and "finished rows are kept in" in said
    kept = work.recorded()
    done = run(b"".join(lines))
    assert done.returncode == 3 and gone_on_after(done) == kept > 0
    assert work.output.read_bytes() == whole


def limit_files():
    """Every file may have 1.25 MiB: the weights fit, the output does not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 18, 5 << 18))


def test_a_full_disk(work, whole):
    work.output.write_bytes(b"precious")
    assert len(whole) > 7 << 18
    done = subprocess.run([CHORUS, *map(str, work.command())], capture_output=True, timeout=120, preexec_fn=limit_files, check=False)
    kept = work.recorded()
    assert done.returncode == 1 and len(other_lines(done.stderr)) == 1
    said = other_lines(done.stderr)[0]
    assert "File too large" in said and f"run again; {kept} finished rows are kept in {work.partial}" in said and kept > ROWS // 2
    assert work.output.read_bytes() == b"precious"
    assert gone_on_after(work.finish()) == kept
    assert work.output.read_bytes() == whole


def test_a_fleet_that_is_given_up(work, whole):
    process = work.start("--engine-restarts-max", "0")
    work.wait_for_rows(process, 0)
    os.kill(wait_for_engines(process, 1)[0], signal.SIGKILL)
    errors = process.communicate(timeout=60)[1]
    kept = work.recorded()
    assert process.returncode == 1 and len(other_lines(errors)) == 1, errors.decode()
    assert f"{kept} finished rows are kept in {work.partial}: the same command goes on after them" in other_lines(errors)[0]
    done = work.finish("--engine-restarts-max", "5")
    assert gone_on_after(done) == kept > 0
    assert work.output.read_bytes() == whole


def test_the_time_of_templates_is_that_of_the_first_run(work, tmp_path):
    work.model = tmp_path / "model"
    shutil.copytree(STORIES, work.model)
    (work.model / "chat_template.jinja").write_text("{{ strftime_now('%H:%M:%S') }} {{ messages[0].content }}")
    work.source.write_bytes(b"".join(b'{"messages": [{"role": "user", "content": "%d"}], "max_tokens": 60, "ignore_eos": true}\n' % row for row in range(ROWS)))
    work.cut_off()
    time.sleep(1)
    done = chorus(*work.command())
    assert done.returncode == 0 and gone_on_after(done)
    rows = [json.loads(line) for line in work.output.read_text(encoding="utf-8").splitlines()]
    assert len({row["prompt"].split()[0] for row in rows}) == 1 and len(rows) == ROWS
