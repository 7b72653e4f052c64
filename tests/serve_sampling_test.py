"""The sampling fields that bound an output, against a step by step decoder here that knows the model's most likely tokens alone; and generate's rows, the same."""
import json

import pytest

from chorus_process import STORIES, chorus
from serving import serving

FAST = ["--threads", "1", "--kv-cache-memory", "32MiB"]
PROMPT = "Once upon a time there was a little girl named Lily."


@pytest.fixture(scope="module")
def server():
    with serving(STORIES, "-dp", "2", *FAST) as running:
        yield running
        assert running.stop() == 0


def ids_of(server, text):
    return server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]


def ask(server, **more):
    return server.post("/v1/completions", {"prompt": PROMPT, "temperature": 0, "max_tokens": 40, "return_token_ids": True, **more})["choices"][0]


def decode(server, allows, count=40):
    """Greedy, a token at a time: the most likely one that `allows` takes behind the output so far."""
    prompt = server.post("/tokenize", {"prompt": PROMPT})["tokens"]
    output = []
    while len(output) < count:
        body = {"prompt": prompt + output, "max_tokens": 1, "temperature": 0, "logprobs": 20, "return_tokens_as_token_ids": True}
        top = server.post("/v1/completions", body)["choices"][0]["logprobs"]["top_logprobs"][0]
        ranked = [int(name.split(":")[1]) for name in sorted(top, key=lambda name: -top[name])]
        output.append(next(token for token in ranked if allows(output, token)))
    return output


def runs_of(server, words):
    """As vLLM's SamplingParams.update_from_tokenizer."""
    runs = []
    for word in words:
        first, second = ids_of(server, word.lstrip()), ids_of(server, " " + word.lstrip())
        runs.append(first)
        if len(first) == len(second) and first[0] != second[0]:
            runs.append(second)
    return runs


@pytest.mark.parametrize("words", [["play"], ["loved", " park", "."], ["One", "She"]])
def test_bad_words(server, words):
    runs = runs_of(server, words)
    plain, given = ask(server), ask(server, bad_words=words)
    expected = decode(server, lambda output, token: not any((output + [token])[-len(run):] == run for run in runs))
    assert given["token_ids"] == expected != plain["token_ids"]


def test_allowed_token_ids(server):
    allowed = sorted(set(ids_of(server, "She liked to play with the red ball. He was happy")))
    given = ask(server, allowed_token_ids=allowed)
    assert set(given["token_ids"]) <= set(allowed)
    # Of its steps those are compared whose best token is among the 20 that an answer names.
    try:
        expected = decode(server, lambda output, token: token in allowed)
    except StopIteration:
        pytest.skip("a step's 20 most likely tokens have none of them")
    assert given["token_ids"] == expected
    drawn = ask(server, allowed_token_ids=allowed, temperature=1.5, seed=3, max_tokens=200, ignore_eos=True)
    assert set(drawn["token_ids"]) <= set(allowed)


def test_logprob_token_ids(server):
    top = ask(server, logprobs=20, return_tokens_as_token_ids=True)["logprobs"]
    names = [name for name in top["top_logprobs"][0] if name != top["tokens"][0]][:3]
    wanted = [int(name.split(":")[1]) for name in names]
    told = ask(server, logprob_token_ids=wanted, return_tokens_as_token_ids=True)["logprobs"]
    assert told["tokens"] == top["tokens"] and told["token_logprobs"] == top["token_logprobs"]
    assert list(told["top_logprobs"][0])[-3:] == names, "in the order that was asked for"
    for position, entry in enumerate(told["top_logprobs"]):
        assert set(entry) == {*names, told["tokens"][position]}
        common = set(entry) & set(top["top_logprobs"][position])
        assert common and all(entry[name] == top["top_logprobs"][position][name] for name in common)


def test_truncate_prompt_tokens(server):
    ids = server.post("/tokenize", {"prompt": PROMPT})["tokens"]
    for more, kept in [({"truncate_prompt_tokens": 5}, ids[-5:]), ({"truncate_prompt_tokens": 5, "truncation_side": "right"}, ids[:5]), ({"truncate_prompt_tokens": -1}, ids)]:
        given = ask(server, **more)
        assert given["prompt_token_ids"] == kept and given["token_ids"] == ask(server, prompt=kept)["token_ids"]
    long = ask(server, prompt=[5] * 600, truncate_prompt_tokens=-1)
    assert len(long["prompt_token_ids"]) == 512 - 40


def test_a_salt_changes_no_output(server):
    plain = ask(server)["token_ids"]
    assert all(ask(server, cache_salt=salt)["token_ids"] == plain for salt in ("a", "b", "a"))


def test_generate_has_the_same_fields(server):
    rows = [{"bad_words": ["little", "."]}, {"allowed_token_ids": [410, 411, 412]}, {"truncate_prompt_tokens": 4}, {"cache_salt": "x"}, {"logprob_token_ids": [300, 5]}]
    rows = [{"prompt": PROMPT, "temperature": 0, "max_tokens": 40, **row} for row in rows]
    done = chorus("generate", STORIES, *FAST, stdin="".join(json.dumps(row) + "\n" for row in rows).encode())
    lines = [json.loads(line)["outputs"][0] for line in done.stdout.splitlines()]
    assert [line["token_ids"] for line in lines] == [ask(server, **row)["token_ids"] for row in rows]
    assert [token for token, _ in lines[4]["logprobs"][0]["top"]] == [300, 5]
    given = chorus("generate", STORIES, *FAST, "--prompt", PROMPT, "--temperature", "0", "--max-tokens", "40", "--bad-words", "little", "--bad-words", ".")
    assert json.loads(given.stdout)["outputs"][0]["token_ids"] == lines[0]["token_ids"]
