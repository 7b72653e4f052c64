"""`chorus env`, `chorus --version` and `chorus bench`: what they print and write."""
import json
import os
import re
import subprocess
import xml.etree.ElementTree

import pytest

from chorus_process import CHORUS, STORIES, TINY, chorus

CORES = len(os.sched_getaffinity(0))
SMALL = ["--max-num-seqs", "8", "--max-model-len", "64", "--kv-cache-memory", "16MiB", "--threads", "1"]


def test_version():
    done = chorus("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"chorus \d+\.\d+\.\d+\nnumerics profile: [\w-]+/bfloat16 [\w-]+/float32\n", done.stdout.decode())


def test_env_as_text():
    done = chorus("env")
    assert done.returncode == 0
    names = {line.split("  ")[0] for line in done.stdout.decode().splitlines()}
    assert {"chorus", "cpu", "cpu features", "instruction sets", "cores", "memory", "GPUs", "numerics profile", "library"} <= names


def test_env_as_json():
    done = chorus("env", "--json")
    assert done.returncode == 0
    env = json.loads(done.stdout)
    assert f"chorus {env['version']}\n" in chorus("--version").stdout.decode()
    assert env["cpu"]["instruction_sets"][-1] == "scalar"
    for dtype, profile in env["numerics_profiles"].items():
        assert profile == f"{env['cpu']['instruction_sets'][0]}/{dtype}"
    assert env["cores"]["affinity"] == sorted(os.sched_getaffinity(0)) and 1 <= env["cores"]["usable"] <= CORES
    assert 0 < env["memory"]["available_bytes"] <= env["memory"]["total_bytes"]
    assert env["gpus"]["cuda_backend"] is False
    assert all(gpu["memory_bytes"] > 0 for gpu in env["gpus"]["found"])


def test_env_sees_the_affinity():
    one = min(os.sched_getaffinity(0))
    done = subprocess.run([CHORUS, "env", "--json"], stdout=subprocess.PIPE, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {one}))
    assert json.loads(done.stdout)["cores"] | {"cgroup_limit": None} == {"usable": 1, "affinity": [one], "cgroup_limit": None}


def bench(tmp_path, *arguments):
    """The JSON object and the table of a bench that must succeed."""
    path = tmp_path / "bench.json"
    done = chorus("bench", *arguments, *SMALL, "--output-json", path)
    assert done.returncode == 0, done.stderr.decode()
    plot = xml.etree.ElementTree.parse(path.with_suffix(".svg")).getroot()
    assert len(plot.findall(".//{*}polyline")) >= 1 and f"bench {arguments[0]}" in plot.find("{*}title").text
    return json.loads(path.read_text()), done.stdout.decode()


@pytest.mark.parametrize("size", [1, 2])
def test_throughput(tmp_path, size):
    result, table = bench(tmp_path, "throughput", STORIES, "--num-prompts", "24", "--input-len", "20", "--output-len", "10", "-dp", size)
    for name in ("requests_per_second", "output_tokens_per_second", "total_tokens_per_second", "elapsed_s", "load_s", "ready_s", "peak_rss_bytes",
                 "weight_bytes"):
        assert result[name] > 0, name
    assert result["data_parallel_size"] == size
    assert re.fullmatch(r"[\w-]+/bfloat16", result["profile"])
    assert result["requests_per_second"] == pytest.approx(24 / result["elapsed_s"])
    assert result["output_tokens_per_second"] == pytest.approx(240 / result["elapsed_s"])
    assert result["total_tokens_per_second"] == pytest.approx(24 * 30 / result["elapsed_s"])
    assert result["weight_bytes"] < result["peak_rss_bytes"] < 1 << 30
    assert "240 output tokens" in table


def test_throughput_of_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Once upon a time", "max_tokens": 5}\n{"prompt_token_ids": [1, 2, 3], "max_tokens": 7, "ignore_eos": true}\n')
    result, _ = bench(tmp_path, "throughput", STORIES, "--input", path)
    assert result["num_requests"] == 2 and result["output_tokens"] == 12
    result, _ = bench(tmp_path, "throughput", STORIES, "--input", path, "--output-len", "9", "--num-iters", "2")
    assert result["num_requests"] == 2 and result["output_tokens"] == 18
    path.write_text('{"prompt": "Once"}\n{"prompt_token_ids": [1, 100000]}\n')
    done = chorus("bench", "throughput", STORIES, *SMALL, "--input", path)
    assert done.returncode == 3 and "100000" in done.stderr.decode()


def test_weights_that_do_not_exist(tmp_path):
    (tmp_path / "config.json").write_text((TINY / "qwen2" / "config.json").read_text())
    result, _ = bench(tmp_path, "throughput", tmp_path, "--load-format", "dummy", "--num-prompts", "5", "--input-len", "9", "--output-len", "4")
    assert result["num_requests"] == 5 and result["output_tokens"] == 20


def test_latency(tmp_path):
    result, table = bench(tmp_path, "latency", STORIES, "--batch-size", "3", "--input-len", "20", "--output-len", "10", "--num-iters", "4")
    assert 0 < result["prefill_s"] <= result["latency_s"]  # all tokens may have come when the program gets to look
    assert result["latency_s"] == pytest.approx(result["prefill_s"] + 9 * result["decode_s_per_token"])
    for of in result["percentiles"].values():
        assert 0 <= of["p50"] <= of["p90"] <= of["p99"]
    assert "p99" in table
    result, _ = bench(tmp_path, "latency", STORIES, "--batch-size", "1", "--input-len", "5", "--output-len", "1", "--num-iters", "2")
    assert result["percentiles"]["decode_s_per_token"] is None and result["prefill_s"] == result["latency_s"]


def test_scaling(tmp_path):
    result, table = bench(tmp_path, "scaling", STORIES, "--data-parallel-sizes", "2,1", "--num-prompts", "40", "--input-len", "10", "--output-len", "10")
    two, one = result["results"]
    assert (one["data_parallel_size"], two["data_parallel_size"]) == (1, 2)
    assert one["efficiency"] == 1.0
    assert two["efficiency"] == pytest.approx(two["output_tokens_per_second"] / (2 * one["output_tokens_per_second"]))
    assert two["oversubscribed"] == (CORES < 2)
    for row in result["results"]:
        assert len(row["elapsed_s_of_runs"]) == 3 and row["elapsed_s"] == sorted(row["elapsed_s_of_runs"])[1]
    assert one["weight_bytes"] == two["weight_bytes"]
    assert "efficiency" in table


@pytest.mark.parametrize("arguments, words", [
    (["throughput", "nowhere"], "nowhere"),
    (["throughput", STORIES, "--input-len", "500", "--output-len", "500"], "max_model_len"),
    (["throughput", STORIES, "--num-prompts", "-1"], "--num-prompts"),
    (["throughput", STORIES, "--num-iters", "0"], "--num-iters"),
    (["throughput", STORIES, "--input", "nowhere.jsonl"], "nowhere.jsonl"),
    (["throughput", STORIES, "--output-json", "/nowhere/out.json"], "/nowhere/out.json"),
    (["latency", STORIES, "--batch-size", "0"], "--batch-size"),
    (["scaling", STORIES, "--data-parallel-sizes", "1,two"], "--data-parallel-sizes"),
    (["scaling", STORIES, "--data-parallel-sizes", "1,1"], "--data-parallel-sizes"),
    (["scaling", STORIES, "--data-parallel-sizes", "0"], "--data-parallel-sizes"),
])
def test_wrong_bench_usage(arguments, words):
    done = chorus("bench", *arguments)
    assert done.returncode == 2 and done.stdout == b"", done
    assert words in done.stderr.decode()


def test_kernels_against_the_limits_of_the_machine(tmp_path):
    file = tmp_path / "kernels.json"
    done = chorus("bench", "kernels", STORIES, "--threads", "1", "--num-iters", "1", "--output-json", file)
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    assert result["peak_gflops"] > 0 and result["bandwidth_gbytes_per_s"] > 0 and result["threads"] == 1
    assert {(row["name"], row["rows"]) for row in result["products"]} == {
        (name, rows) for name in ["qkv", "o", "feed-forward", "output"] for rows in [1, 8, 32, 512]}
    for row in result["products"]:
        assert row["ratio"] == pytest.approx(row["possible_seconds"] / row["seconds"])
    assert len(done.stdout.splitlines()) == 2 + 16
