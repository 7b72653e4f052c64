"""/metrics under Prometheus's own reader and its rules (Debian's package prometheus has promtool)."""
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import STORIES  # noqa: E402  pylint: disable=wrong-import-position
from serving import serving  # noqa: E402  pylint: disable=wrong-import-position

# vLLM's own names; promtool has the same to say of vLLM's.
NAMES = ["metric names should not contain ':'", 'iteration_tokens_total non-counter metrics should not have "_total" suffix']


def test_promtool_finds_nothing_but_vllms_names():
    with serving(STORIES, "-dp", "2", "--threads", "1", "--kv-cache-memory", "16MiB", "--served-model-name", 'a"quoted"\\name') as server:
        for _ in range(4):
            server.post("/v1/completions", {"prompt": "Once", "max_tokens": 5})
        text = server.request("GET", "/metrics")[2]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode().splitlines()
    assert done.returncode in (0, 3), said  # 3: it reads it, and has something to say of its style
    assert not [line for line in said if not line.endswith(tuple(NAMES))]
