"""Quantised Hugging Face folders (tests/data/quantized): the reference's tokens, the same bytes however the work is spread, what is said of them, and what is
refused."""
import json
import random
import shutil

import pytest

from chorus_process import ROOT, chorus, generate_and_kill

DATA = ROOT / "tests" / "data" / "quantized"
QUIET = ["--disable-progress-bars", "--kv-cache-memory", "16MiB"]
# What the matrices are packed in that the segments of the reduction tree leave whole.
NATIVE = {"gptq_sym4": "int4", "gptq_asym4_v2": "int4 with zero point", "gptq_sym8": "int8", "gptq_moe": "int4", "awq": "int4 with zero point",
          "packed_sym4": "int4", "packed_asym4": "int4 with zero point", "packed_int8": "int8", "w8a8_int8": "int8", "mxfp4": "int8"}
FLOATS = ["gptq_act_order", "fp8_channel", "fp8_tensor", "fp8_block"]
FOLDERS = [*NATIVE, *FLOATS]
MARGIN = 2e-4


def run(folder, rows, *options):
    done = chorus("generate", DATA / folder, *QUIET, *options, stdin="".join(json.dumps(row) + "\n" for row in rows).encode(), timeout_s=600)
    assert done.returncode in (0, 3), done.stderr.decode()
    return done


def lines_of(done):
    return [json.loads(line)["outputs"][0] for line in done.stdout.splitlines()]


def mixed_rows(count=20):
    rng = random.Random(3)
    return [{"prompt_token_ids": [1] + [rng.randrange(3, 128) for _ in range(rng.randrange(1, 90))], "max_tokens": 8, "temperature": i % 2, "seed": i, "logprobs": 2,
             "ignore_eos": True} for i in range(count)]


def reference(folder):
    return json.loads((DATA / folder / "reference.json").read_text())["prompts"]


def greedy_rows(folder, tokens):
    return [{"prompt_token_ids": prompt["ids"], "max_tokens": tokens, "temperature": 0, "logprobs": 5, "ignore_eos": True} for prompt in reference(folder)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_de_quantised_it_continues_as_the_reference_does(folder):
    outputs = lines_of(run(folder, greedy_rows(folder, 24), "--dtype", "float32", "--quantization", "none"))
    compared = 0
    for prompt, output in zip(reference(folder), outputs, strict=True):
        for ours, theirs, margin in zip(output["token_ids"], prompt["greedy"], prompt["margins"], strict=True):
            if margin < MARGIN:
                break
            assert ours == theirs
            compared += 1
    assert compared > 40


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_same_bytes_however_the_work_is_spread(folder):
    expected = run(folder, mixed_rows(), "--threads", "1").stdout
    variants = [["-tp", "2", "--threads", "1"], ["-dp", "2", "--threads", "1"], ["--max-num-batched-tokens", "16", "--max-num-seqs", "3"]]
    if folder in ("gptq_moe", "mxfp4"):
        variants.append(["-dp", "2", "-ep", "--threads", "1"])
    for variant in variants:
        assert run(folder, mixed_rows(), *variant).stdout == expected, variant


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_same_bytes_when_a_replica_is_killed(folder, tmp_path):
    rows = mixed_rows(400)
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert generate_and_kill(DATA / folder, tmp_path / "rows", tmp_path / "out", *QUIET, "--threads", "1") == run(folder, rows, "--threads", "1").stdout


@pytest.mark.parametrize("folder", NATIVE)
def test_its_own_integers_are_near_its_floats(folder):
    """What is left is the rounding of x to 8 bits in groups of 32: docs/numerics.md."""
    done = run(folder, greedy_rows(folder, 1), "--dtype", "float32")
    exact = run(folder, greedy_rows(folder, 1), "--dtype", "float32", "--quantization", "none")
    assert done.stdout != exact.stdout, "computed in floats"
    assert f"{NATIVE[folder]} (" in done.stderr.decode()
    for ours, theirs in zip(lines_of(done), lines_of(exact), strict=True):
        first, expected = dict(ours["logprobs"][0]["top"]), dict(theirs["logprobs"][0]["top"])
        common = first.keys() & expected.keys()
        assert len(common) >= 3
        for token in common:
            assert first[token] == pytest.approx(expected[token], abs=0.15)


@pytest.mark.parametrize("folder", FLOATS)
def test_what_has_no_integers_of_ours_is_de_quantised_and_said_so(folder):
    done = run(folder, mixed_rows()[:1])
    exact = run(folder, mixed_rows()[:1], "--quantization", "none")
    assert done.stdout == exact.stdout
    assert "de-quantised into " in done.stderr.decode() and " MiB)" in done.stderr.decode()


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_on_the_fly_from_a_quantised_folder(quantization):
    assert len(lines_of(run("awq", mixed_rows()[:2], "--quantization", quantization))) == 2


def test_activations_that_are_not_rounded_are_told():
    assert b"activations are not rounded" in run("w8a8_int8", mixed_rows()[:1]).stderr
    assert b"activations are not rounded" not in run("packed_int8", mixed_rows()[:1]).stderr


def test_inspect_says_how_a_matrix_is_quantised():
    done = chorus("inspect", DATA / "packed_sym4", "--json")
    assert done.returncode == 0, done.stderr.decode()
    found = {parameter["name"]: parameter for parameter in json.loads(done.stdout)["parameters"]}
    up, exempt = found["model.layers.0.mlp.up_proj.weight"], found["model.layers.0.self_attn.k_proj.weight"]
    assert (up["dtype"], up["shape"], up["slices"][0]["packed_dtype"]) == ("compressed-tensors", [256, 64], "int4")
    assert exempt["dtype"] == "bfloat16", "named by re:.*self_attn.k_proj$ among what is exempt"
    assert json.loads(done.stdout)["unused"] == []


def test_a_folder_whose_parts_do_not_fit_is_refused_before_anything_runs(tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(DATA / "gptq_sym4" / name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["group_size"] = 48
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = chorus("generate", tmp_path, "--prompt", "x")
    assert done.returncode == 2
    assert b"model.layers.0.mlp.down_proj (GPTQ): groups of 48 columns do not divide its 256" in done.stderr
