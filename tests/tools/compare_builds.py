#!/usr/bin/python3
"""Two builds of Chorus on the same work: do they give the same bytes, and how fast is one beside the other?

    tests/tools/compare_builds.py bytes OLD/chorus NEW/chorus      the exactness workload, every family, dtype and instruction set
    tests/tools/compare_builds.py speed OLD/chorus NEW/chorus      A B A B, 5 rounds, medians and ratios

`bytes` ends with 1 when an output differs and names the first row; `speed` only reports.
"""
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from workload import rows  # noqa: E402

STORIES = ROOT / "models" / "stories260k"
TINY = ROOT / "tests" / "data" / "models"
FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe", "phimoe", "exaone4", "granite", "hunyuan_dense", "phi3", "seed_oss", "smollm3", "stablelm"]
# The shape of Qwen2.5-0.5B; its weights are random (--load-format dummy).
HALF_BILLION = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
                "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
                "rope_theta": 1000000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}
ROUNDS = 5


def run(binary, *arguments):
    env = dict(os.environ, CHORUS_LOG_LEVEL="error")
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, env=env, check=False)
    if done.returncode not in (0, 3):
        sys.exit(f"{binary} {' '.join(map(str, arguments))}: exit status {done.returncode}\n{done.stderr.decode()}")
    return done.stdout


def first_difference(old, new):
    for number, (a, b) in enumerate(zip(old.splitlines(), new.splitlines()), 1):
        if a != b:
            return f"line {number}:\n  old {a.decode()[:400]}\n  new {b.decode()[:400]}"
    return f"{len(old.splitlines())} lines against {len(new.splitlines())}"


def instruction_sets(binary):
    names = ["amx-bf16", "avx512-bf16", "avx2-f32", "scalar"]
    works = lambda isa: subprocess.run([binary, "generate", STORIES, "--prompt", "a", "--max-tokens", "1", "--cpu-isa", isa], capture_output=True, check=False).returncode == 0
    return [isa for isa in names if works(isa)]


def compare_bytes(old, new):
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "text.jsonl"
        text.write_text("".join(json.dumps(row) + "\n" for row in rows()))
        rng = random.Random(2)
        ids = pathlib.Path(folder) / "ids.jsonl"
        ids.write_text("".join(json.dumps({"prompt_token_ids": [1] + [rng.randrange(3, 512) for _ in range(rng.randrange(1, 150))], "max_tokens": 12,
                                           "temperature": index % 2, "seed": index, "logprobs": 2}) + "\n" for index in range(60)))
        works = [(STORIES, text)] + [(TINY / family, ids) for family in FAMILIES]
        differ = 0
        for isa in instruction_sets(old):
            for dtype in ("float32", "bfloat16"):
                for model, input_file in works:
                    arguments = ["generate", model, "--input", input_file, "--dtype", dtype, "--cpu-isa", isa]
                    before, after = run(old, *arguments), run(new, *arguments)
                    same = before == after
                    differ += not same
                    print(f"{isa:12} {dtype:9} {model.name:12} {len(before):9} bytes  {'identical' if same else 'DIFFERENT'}", flush=True)
                    if not same:
                        print("  " + first_difference(before, after))
        return 1 if differ else 0


def latency(binary, model, folder, batch, input_len, output_len):
    report = pathlib.Path(folder) / "report.json"
    run(binary, "bench", "latency", model, "--load-format", "dummy", "--batch-size", batch, "--input-len", input_len, "--output-len", output_len,
        "--threads", 2, "--max-model-len", 1024, "--output-json", report)
    return json.loads(report.read_text())


def throughput(binary, folder):
    report = pathlib.Path(folder) / "report.json"
    run(binary, "bench", "throughput", STORIES, "-dp", 2, "--num-prompts", 512, "--input-len", 64, "--output-len", 64, "--threads", 1, "--output-json", report)
    return json.loads(report.read_text())


def compare_speed(old, new):
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "half_billion"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(HALF_BILLION))
        cases = {
            "prefill 512, tokens/s": lambda b: 512 / latency(b, model, folder, 1, 512, 2)["prefill_s"],
            "decode 1, tokens/s": lambda b: 1 / latency(b, model, folder, 1, 16, 24)["decode_s_per_token"],
            "decode 8, tokens/s": lambda b: 8 / latency(b, model, folder, 8, 16, 24)["decode_s_per_token"],
            "decode 32, tokens/s": lambda b: 32 / latency(b, model, folder, 32, 16, 24)["decode_s_per_token"],
            "stories dp=2, tokens/s": lambda b: throughput(b, folder)["output_tokens_per_second"],
        }
        for name, measure in cases.items():
            pairs = [(measure(old), measure(new)) for _ in range(ROUNDS)]
            ratios = [b / a for a, b in pairs]
            print(f"{name:24} old {statistics.median(a for a, _ in pairs):10.1f}  new {statistics.median(b for _, b in pairs):10.1f}  "
                  f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)
        return 0


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in ("bytes", "speed"):
        sys.exit(__doc__)
    return {"bytes": compare_bytes, "speed": compare_speed}[sys.argv[1]](sys.argv[2], sys.argv[3])


if __name__ == "__main__":
    sys.exit(main())
