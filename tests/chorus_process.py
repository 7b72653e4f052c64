"""Runs the built program as a user does."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHORUS = os.environ.get("CHORUS", str(ROOT / "build" / "chorus"))
STORIES = str(ROOT / "models" / "stories260k")
STORIES_F32 = str(ROOT / "tests" / "data" / "models" / "stories260k-f32")
TINY = ROOT / "tests" / "data" / "models"


def chorus(*arguments, stdin=b"", timeout_s=300, env=None):
    """The finished process; output as bytes."""
    full = dict(os.environ, CHORUS_LOG_LEVEL="info", **(env or {}))
    return subprocess.run([CHORUS, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout_s, env=full, check=False)


def generate(model, *arguments, rows=None, stdin=b"", **options):
    """Output lines of a run that must succeed."""
    if rows is not None:
        stdin = "".join(json.dumps(row) + "\n" for row in rows).encode()
    done = chorus("generate", model, *arguments, stdin=stdin, **options)
    assert done.returncode in (0, 3), done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]
