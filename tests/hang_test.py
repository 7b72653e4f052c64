"""An engine that stops in the middle of its work (SIGSTOP: it lives and finishes nothing) is found by its progress; the
output is that of a calm run. One that computes for long, loads or idles is not taken for it (fleet_test, hang_watch_test)."""
import json
import os
import signal
import subprocess
import time

from chorus_process import CHORUS, STORIES, wait_for_engines

ARGUMENTS = ["generate", STORIES, "-dp", "2", "--threads", "1", "--max-num-seqs", "8", "--kv-cache-memory", "16MiB"]
ROWS = "".join(json.dumps({"prompt": f"Once upon a time there were {i} ", "max_tokens": 200, "ignore_eos": True, "seed": i}) + "\n"
               for i in range(400))
NOTICED_WITHIN_S = 10  # measured: see the printed figure; the machine of a test may be busy


def run(folder, name, stopped=None):
    """Writes `name`.jsonl; with `stopped` that rank is stopped in the middle. Gives the log."""
    log_path = folder / f"{name}.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen([CHORUS, *ARGUMENTS, "--output", folder / f"{name}.jsonl"], stdin=subprocess.PIPE, stderr=log,
                                   env=dict(os.environ, CHORUS_LOG_LEVEL="info"))
        process.stdin.write(ROWS.encode())
        process.stdin.close()
        if stopped is not None:
            stop(process, stopped, log_path)
        assert process.wait(timeout=120) == 0, log_path.read_text()
    return log_path.read_text()


def wait_for(text, path, process, within_s):
    deadline = time.monotonic() + within_s
    while text not in path.read_text():
        assert process.poll() is None, f"over before {text!r}: {path.read_text()}"
        assert time.monotonic() < deadline, f"no {text!r} within {within_s} s: {path.read_text()}"
        time.sleep(0.005)


def stop(process, rank, log_path):
    engines = wait_for_engines(process, 2)
    for other in range(2):
        wait_for(f"Worker rank {other} is ready", log_path, process, 60)
    time.sleep(0.3)  # into the decode
    os.kill(engines[rank], signal.SIGSTOP)
    stopped_at = time.monotonic()
    wait_for("hung: no layer finished for", log_path, process, NOTICED_WITHIN_S)
    print(f"a stopped engine was noticed after {time.monotonic() - stopped_at:.2f} s")


def test_a_stopped_engine_is_found_and_the_output_is_that_of_a_calm_run(tmp_path):
    calm = run(tmp_path, "calm")
    assert "hung" not in calm
    log = run(tmp_path, "stopped", stopped=1)
    line = next(line for line in log.splitlines() if "hung: no layer finished for" in line)
    assert "Worker rank 1 " in line and "go to the others" in line, line
    assert "Worker rank 0 (pid" not in log, "the other replica died too: " + log
    subprocess.run(["cmp", tmp_path / "calm.jsonl", tmp_path / "stopped.jsonl"], check=True)
