"""The exactness workload: MT-bench, GSM8K and hostile strings, with every kind of sampling."""
import json
import pathlib

DATA = pathlib.Path(__file__).resolve().parent / "data" / "workloads"


def prompts():
    for line in open(DATA / "mt_bench_question.jsonl", encoding="utf-8"):
        yield from json.loads(line)["turns"]
    for line in open(DATA / "gsm8k_test_first400.jsonl", encoding="utf-8"):
        yield json.loads(line)["question"]
    yield from json.load(open(DATA / "blns.json", encoding="utf-8"))


SAMPLING = [
    {},
    {"temperature": 0.0, "logprobs": 3},
    {"temperature": 1.0, "seed": 7},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "seed": 11, "logprobs": 1},
    {"temperature": 1.3, "min_p": 0.05, "repetition_penalty": 1.2, "seed": -3},
    {"temperature": 0.7, "n": 2, "presence_penalty": 0.5, "frequency_penalty": 0.3, "seed": 99},
    {"temperature": 0.9, "stop": ["the", "\n"], "min_tokens": 3, "seed": 5},
    {"temperature": 0.0, "prompt_logprobs": 2, "max_tokens": 4},
    {"temperature": 1.1, "seed": 21, "bad_words": ["the", "was a", "."], "logprob_token_ids": [300, 5, 431], "cache_salt": "one"},
    {"temperature": 1.4, "seed": 22, "allowed_token_ids": [*range(300, 460)], "truncate_prompt_tokens": 40, "cache_salt": "two"},
    {"temperature": 1.0},  # the seed comes from the front door
]


def rows():
    for index, prompt in enumerate(prompts()):
        row = {"id": f"row-{index}", "prompt": prompt, "max_tokens": 8 + index % 17, "temperature": 0.0}
        row.update(SAMPLING[index % len(SAMPLING)])
        yield row
