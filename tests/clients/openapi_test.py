"""/openapi.json by an independent reader: schemathesis makes requests from it, good and bad ones, and looks whether each answer is one that it describes.

SCHEMATHESIS_EXAMPLES: requests a route and phase, 40 unless given."""
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from serve_faults_test import with_template  # noqa: E402  pylint: disable=wrong-import-position
from serving import serving  # noqa: E402  pylint: disable=wrong-import-position

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance", "response_headers_conformance", "negative_data_rejection",
          "unsupported_method", "ignored_auth"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(with_template(tmp_path_factory.mktemp("model")), "--max-model-len", "64", "--threads", "1", "--kv-cache-memory", "32MiB") as running:
        yield running
        assert running.stop() == 0


def test_no_answer_but_those_described(server, tmp_path):
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    done = subprocess.run([program, "run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks", ",".join(CHECKS), "--max-examples",
                           os.environ.get("SCHEMATHESIS_EXAMPLES", "40"), "--seed", "1", "--no-color"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    selected, total = map(int, re.search(r"(\d+) selected / (\d+) total", done.stdout).groups())
    assert selected == total >= 12
    assert json.loads(server.request("GET", "/load")[2])["server_load"] == 0
