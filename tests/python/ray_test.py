"""LLM and AsyncLLM whose replicas Ray places: by the chorus-ray of the wheel, in an environment that has Ray."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import time

import pytest

from chorus import LLM, SamplingParams, _engine

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "launchers"))
from chorus_process import STORIES  # noqa: E402
from launched_ranks import VENV  # noqa: E402
from ray_nodes import RayNode  # noqa: E402

CHORUS_RAY = pathlib.Path(_engine.program_path()).with_name("chorus-ray")
WHEELS = pathlib.Path(os.environ.get("CHORUS_PYTHON_SITE", "")).parent / "dist"
SMALL = {"max_model_len": 256, "kv_cache_memory": "16MiB", "threads": 1, "max_num_seqs": 16}
PROMPTS = [f"Story {i}: once upon a time" for i in range(12)]
PROGRAM = """
import asyncio, json
from chorus import LLM, AsyncLLM, SamplingParams
model, prompts, options = json.loads({arguments!r})
options |= dict(data_parallel_size=2, data_parallel_backend="ray")
params = SamplingParams(temperature=0.8, max_tokens=24, seed=3)
"""
WITH_LLM = """
with LLM(model, **options) as llm:
    print(json.dumps([(output.outputs[0].text, output.dp_rank) for output in llm.generate(prompts, params, use_tqdm=False)]))
"""
WITH_ASYNC_LLM = """
async def last(engine, prompt):
    async for output in engine.generate(prompt, params):
        pass
    return output.outputs[0].text, output.dp_rank

async def run():
    with AsyncLLM(model, **options) as engine:
        print(json.dumps(await asyncio.gather(*(last(engine, prompt) for prompt in prompts))))
asyncio.run(run())
"""

needs_ray = pytest.mark.skipif(not CHORUS_RAY.exists() or not (VENV / "bin" / "ray").exists(),
                               reason="no chorus-ray in the wheel (make ray, then make wheel)")


@pytest.fixture(scope="module")
def expected():
    with LLM(STORIES, **SMALL) as llm:
        return [output.outputs[0].text for output in llm.generate(PROMPTS, SamplingParams(temperature=0.8, max_tokens=24, seed=3), use_tqdm=False)]


def make_environment(path, with_ray_packages):
    """A virtual environment with the wheel, and with Ray's files where pip would put them. Its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    packages, = path.glob("lib/python3*/site-packages")
    theirs, = VENV.glob("lib/python3*/site-packages")
    (packages / "ray").symlink_to(theirs / "ray")
    if with_ray_packages:
        (packages / "launchers.pth").write_text(f"{theirs}\n", encoding="utf-8")
    python = path / "bin" / "python3"
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", *WHEELS.glob("*.whl")], check=True)
    return python


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return make_environment(tmp_path_factory.mktemp("environment") / "venv", with_ray_packages=True)


def start(python, body, home, ray_address=None):
    """The program. Ray keeps a token in the home."""
    code = PROGRAM.format(arguments=json.dumps([STORIES, PROMPTS, SMALL])) + body
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH", "RAY_AUTH_MODE")}
    environment = kept | {"HOME": str(home), "CHORUS_LOG_LEVEL": "info"} | ({"RAY_ADDRESS": ray_address} if ray_address else {})
    return subprocess.Popen([python, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def check(process, expected):
    """That the program ends, and prints what is expected, by both replicas on Ray."""
    try:
        out, err = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 0, err
    outputs = json.loads(out)
    assert [text for text, _ in outputs] == expected
    assert {rank for _, rank in outputs} == {0, 1}
    assert all(f"Ray has placed worker rank {rank} on node" in err for rank in (0, 1))


def processes_at_home(home):
    """Process ids of those that were started with this home."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def check_nothing_is_left(home, within_s=20):
    deadline = time.monotonic() + within_s
    while left := processes_at_home(home):
        assert time.monotonic() < deadline, f"processes {left} of Ray are left"
        time.sleep(0.1)


@needs_ray
def test_a_cluster_of_its_own(python, expected, tmp_path):
    check(start(python, WITH_LLM, tmp_path), expected)
    check_nothing_is_left(tmp_path)


@needs_ray
def test_a_killed_program_leaves_nothing(python, tmp_path):
    program = start(python, WITH_LLM, tmp_path)
    for line in program.stderr:
        if "Worker rank 0 is ready" in line:
            break
    assert len(processes_at_home(tmp_path)) > 6  # Ray's store, raylet and agents, chorus-ray, the nodes and engines of two ranks
    program.kill()
    program.communicate()
    check_nothing_is_left(tmp_path)


@needs_ray
@pytest.mark.parametrize("body", [WITH_LLM, WITH_ASYNC_LLM], ids=["LLM", "AsyncLLM"])
def test_a_cluster_that_is_there(python, expected, tmp_path, body, request):
    node = RayNode("127.0.0.2", 4)
    request.addfinalizer(node.close)
    check(start(python, body, tmp_path, node.cluster), expected)


@needs_ray
def test_an_environment_without_rays_packages(tmp_path):
    program = start(make_environment(tmp_path / "venv", with_ray_packages=False), WITH_LLM, tmp_path)
    _, error = program.communicate(timeout=60)
    assert program.returncode != 0
    assert "chorus-ray is built with Ray" in error and "has no ray: pip install 'ray[default]==" in error


@needs_ray
def test_an_environment_without_rays_library(tmp_path, monkeypatch, capfd):
    for name in ("chorus", "chorus-ray", "libchorus_ray_actor.so"):
        shutil.copy(CHORUS_RAY.with_name(name), tmp_path)
    monkeypatch.setattr(_engine, "program_path", lambda: str(tmp_path / "chorus"))
    with pytest.raises(RuntimeError, match="install the package ray-cpp beside it"):
        LLM(STORIES, data_parallel_backend="ray", **SMALL)
    assert "libray_api.so" in capfd.readouterr().err


def test_a_wheel_without_chorus_ray(tmp_path, monkeypatch):
    monkeypatch.setattr(_engine, "program_path", lambda: str(tmp_path / "chorus"))
    with pytest.raises(FileNotFoundError, match=f"there is no {tmp_path}/chorus-ray.*make wheel"):
        LLM(STORIES, data_parallel_backend="ray", **SMALL)
