"""LLM in the processes of a launcher: outputs of one process, groups, ends. Started with a launcher's variables, and by torchrun where it is."""
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from chorus import LLM, ParallelConfig, SamplingParams

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "launchers"))
from chorus_process import ROOT, STORIES  # noqa: E402
from launched_ranks import CLEAN, TORCHRUN, free_port, plain_variables  # noqa: E402

EXAMPLE = ROOT / "examples" / "offline_inference" / "torchrun_dp_example.py"
# The wheel in a folder of its own, for a Python that has torch.
SITE = os.environ.get("CHORUS_PYTHON_SITE", "")
PROMPTS = [f"{i}. {text}" for i, text in enumerate(["Once upon a time", "The little dog", "Lily was sad because", "One day, a boy"] * 3)]


@pytest.fixture(scope="module")
def expected():
    with LLM(STORIES, max_model_len=512, kv_cache_memory="32MiB", seed=1) as llm:
        outputs = llm.generate(PROMPTS, SamplingParams(temperature=0.8, top_p=0.95, max_tokens=24), use_tqdm=False)
    return [{"prompt": output.prompt, "text": output.outputs[0].text} for output in outputs]


def run_ranks(body, size, timeout_s=60):
    """(exit status, stdout, stderr) by rank of a program whose LLM is `llm`, its rank `rank`."""
    code = textwrap.dedent("""
        import os
        from chorus import LLM, SamplingParams
        from chorus.distributed.parallel_state import get_dp_group, get_pp_group, get_tp_group, get_world_group
        OPTIONS = dict(distributed_executor_backend="external_launcher", max_model_len=128, kv_cache_memory="8MiB", threads=1)
        rank = int(os.environ["RANK"])
    """) + textwrap.dedent(body)
    port = free_port()
    processes = [subprocess.Popen([sys.executable, "-c", code], env=CLEAN | plain_variables(rank, size, port), stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) for rank in range(size)]
    try:
        ends = [(*process.communicate(timeout=timeout_s), process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, out, err) for out, err, process in ends]


def check_example(prints, saved, expected):
    assert [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()] == expected
    for i, one in enumerate(expected):
        line = f"DP rank {i % 2}, prompt: {one['prompt']!r}, text: {one['text']!r}"
        assert prints.count(line) == 2, "each of the two workers of that replica prints it"
    assert prints.count("of 4 has (256, 64) of the embedding") == 4


def test_the_example_with_a_launchers_variables(expected, tmp_path):
    saved, port = tmp_path / "texts.jsonl", free_port()
    arguments = [sys.executable, EXAMPLE, "--dp-size", "2", "--tp-size", "2", "--output", saved]
    processes = [subprocess.Popen(arguments, env=CLEAN | plain_variables(rank, 4, port), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                 for rank in range(4)]
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, ends
    check_example("".join(out for out, _ in ends), saved, expected)


@pytest.mark.skipif(not TORCHRUN.exists() or not SITE, reason="no torchrun (make test-launchers) or no CHORUS_PYTHON_SITE (make test-python)")
def test_the_example_under_torchrun(expected, tmp_path):
    saved = tmp_path / "texts.jsonl"
    done = subprocess.run([TORCHRUN, "--nproc-per-node=4", "--master-port", free_port(), EXAMPLE, "--dp-size", "2", "--tp-size", "2", "--output", saved],
                          env=CLEAN | {"PYTHONPATH": SITE}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    check_example(done.stdout, saved, expected)


@pytest.mark.skipif(not TORCHRUN.exists() or not SITE, reason="no torchrun (make test-launchers) or no CHORUS_PYTHON_SITE (make test-python)")
def test_cpu_group_is_torchs_where_torch_is(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(f"""
        import torch
        import torch.distributed as dist
        from chorus import LLM
        from chorus.distributed.parallel_state import get_tp_group, get_world_group
        llm = LLM({STORIES!r}, tensor_parallel_size=2, distributed_executor_backend="external_launcher", max_model_len=128, kv_cache_memory="8MiB")
        group = get_world_group().cpu_group
        total = torch.tensor([float(dist.get_rank(group))])
        dist.all_reduce(total, group=group)
        # One string, so one write: two ranks have one stdout.
        print(f"torch {{dist.get_world_size(group)}} {{total.item()}} {{dist.get_world_size(get_tp_group().cpu_group)}}", flush=True)
    """), encoding="utf-8")
    done = subprocess.run([TORCHRUN, "--nproc-per-node=2", "--master-port", free_port(), program], env=CLEAN | {"PYTHONPATH": SITE},
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("torch 2 1.0 2") == 2


def test_groups_and_collectives():
    pytest.importorskip("numpy")
    ends = run_ranks(f"""
        import numpy
        llm = LLM({STORIES!r}, data_parallel_size=2, tensor_parallel_size=2, **OPTIONS)
        world, tp, dp, pp = get_world_group(), get_tp_group(), get_dp_group(), get_pp_group()
        assert (world.rank, world.world_size, world.ranks) == (rank, 4, [0, 1, 2, 3])
        assert (tp.ranks, tp.rank_in_group) == ([rank // 2 * 2, rank // 2 * 2 + 1], rank % 2)
        assert (dp.ranks, dp.rank_in_group) == ([rank % 2, rank % 2 + 2], rank // 2)
        assert (pp.ranks, pp.world_size, pp.is_first_rank, pp.is_last_rank) == ([rank], 1, True, True)
        own = numpy.full((2, 3), rank + 1, dtype=numpy.int64)
        assert world.all_reduce(own).tolist() == [[10] * 3] * 2
        assert tp.all_gather(own).tolist() == [[rank // 2 * 2 + 1] * 3 + [rank // 2 * 2 + 2] * 3] * 2
        assert dp.all_gather(own, dim=0).shape == (4, 3)
        big = numpy.full(3_000_000, float(rank), dtype=numpy.float32)
        assert (world.broadcast(big, src=2) == 2).all() and (big == 2).all()
        assert world.broadcast_object({{"rank": rank}}, src=3) == {{"rank": 3}}
        world.barrier()
        assert (world.cpu_group.rank(), world.cpu_group.size()) == (rank, 4)
        try:
            tp.all_reduce(numpy.zeros(rank + 1))
            raise SystemExit("shapes differ")
        except ValueError as error:
            assert "dtype and shape" in str(error)
        print("fine")
    """, 4)
    assert [(status, out) for status, out, _ in ends] == [(0, "fine\n")] * 4, ends


def test_two_llms_one_after_the_other_and_experts(expected):
    ends = run_ranks(f"""
        for size in (dict(data_parallel_size=2), dict(pipeline_parallel_size=2)):
            with LLM({STORIES!r}, **size, **OPTIONS) as llm:
                for _ in range(2):
                    outputs = llm.generate(["1. The little dog"] if rank == 0 else ["Once", "Twice"][:size.get("data_parallel_size", 0)]
                                           or ["1. The little dog"], SamplingParams(temperature=0, max_tokens=4), use_tqdm=False)
                print(len(outputs), outputs[0].dp_rank, flush=True)
    """, 2)
    assert [(status, out) for status, out, _ in ends] == [(0, "1 0\n1 0\n"), (0, "2 1\n1 0\n")], ends


def test_errors_are_everybodys():
    ends = run_ranks(f"""
        llm = LLM({STORIES!r}, data_parallel_size=1, tensor_parallel_size=2, **OPTIONS)
        for prompts, words in ((["x" * 5000], "128"), ([str(rank)], "different prompts")):
            try:
                llm.generate(prompts, SamplingParams(max_tokens=2), use_tqdm=False)
            except ValueError as error:
                assert words in str(error), error
        assert len(llm.generate(["Once"], SamplingParams(max_tokens=2), use_tqdm=False)) == 1
        print("fine")
    """, 2)
    assert [(status, out) for status, out, _ in ends] == [(0, "fine\n")] * 2, ends


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_a_rank_that_ends_early_ends_the_others(end):
    ends = run_ranks(f"""
        import numpy
        llm = LLM({STORIES!r}, data_parallel_size=2, **OPTIONS)
        if rank == 1:
            {end}
        llm.generate(["Once"], SamplingParams(max_tokens=2), use_tqdm=False)
    """, 2, timeout_s=30)
    assert ends[0][0] == 1 and "RuntimeError" in ends[0][2], ends
    assert ends[1][0] in (3, -9)


def test_a_world_that_does_not_fit():
    ends = run_ranks(f"LLM({STORIES!r}, data_parallel_size=3, **OPTIONS)", 2)
    assert [status for status, _, _ in ends] == [1, 1]
    assert all("ValueError" in err and "3" in err for _, _, err in ends), ends


def test_the_parallel_configuration_is_a_value():
    config = ParallelConfig(data_parallel_size=2, tensor_parallel_size=2, pipeline_parallel_size=3)
    assert (config.world_size, config.world_size_across_dp) == (6, 12)
    assert [config.rank_of(**config.coordinates_of(rank)) for rank in range(12)] == list(range(12))
    assert config.coordinates_of(7) == {"dp": 1, "pp": 0, "cp": 0, "tp": 1}
    with pytest.raises(ValueError, match="data_parallel_rank"):
        ParallelConfig(data_parallel_rank=1)
    with pytest.raises(ValueError, match="tensor_parallel_size"):
        ParallelConfig(tensor_parallel_size=0)
