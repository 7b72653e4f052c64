"""What ends a choice, and what its stop_reason says: the rules of vLLM (docs/numerics.md)."""
import json
import pathlib
import shutil

import pytest

from chorus_process import STORIES, generate
from nodes import Running, free_port, make_key

PERIOD = 426  # the token "." of the model, which it soon emits
GREEDY = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 60}


@pytest.fixture(name="model")
def model_fixture(tmp_path):
    return pathlib.Path(shutil.copytree(STORIES, tmp_path / "model"))


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def change_eos_of_tokenizer(model):
    """special_tokens_map.json counts before tokenizer_config.json where that has no added_tokens_decoder, as in transformers."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        change(model / name, eos_token=".")


def choice(model, **changes):
    return generate(model, rows=[{**GREEDY, **changes}])[0]["outputs"][0]


def test_an_eos_of_the_generation_config_is_the_stop_reason(model):
    change(model / "generation_config.json", eos_token_id=[2, PERIOD])
    ended = choice(model)
    assert (ended["finish_reason"], ended["stop_reason"], ended["token_ids"][-1]) == ("stop", PERIOD, PERIOD)
    assert PERIOD not in ended["token_ids"][:-1]
    later = choice(model, min_tokens=20)
    assert later["stop_reason"] == PERIOD and PERIOD not in later["token_ids"][:-1] and len(later["token_ids"]) > 20
    assert choice(model, ignore_eos=True)["finish_reason"] == "length"


@pytest.mark.parametrize("named", [True, False], ids=["others named", "none named"])
def test_the_tokenizers_own_eos_ends_without_a_stop_reason(model, named):
    change_eos_of_tokenizer(model)
    if not named:
        (model / "generation_config.json").unlink()
        change(model / "config.json", eos_token_id=None)
    ended = choice(model)
    assert (ended["finish_reason"], ended["stop_reason"], ended["token_ids"][-1]) == ("stop", None, PERIOD)
    later = choice(model, min_tokens=20)
    assert later["stop_reason"] is None and PERIOD not in later["token_ids"][:-1] and len(later["token_ids"]) > 20
    asked = choice(model, ignore_eos=True, stop_token_ids=[PERIOD])
    assert asked["stop_reason"] == PERIOD


def test_a_node_ends_choices_where_the_head_says(model, tmp_path):
    """The node's folder has no tokenizer."""
    node_model = shutil.copytree(STORIES, tmp_path / "node", ignore=shutil.ignore_patterns("*token*"))
    change_eos_of_tokenizer(model)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({**GREEDY, "prompt": prompt}) + "\n" for prompt in ("Once", "Lily", "A dog", "The sun")), encoding="utf-8")
    node_address = ["-dp", 2, "-dpl", 1, "-dpa", "127.0.0.1", "-dpp", free_port(), "--threads", 1, "--cluster-key-file", make_key(tmp_path / "key")]
    node = Running(["serve", node_model, "--headless", "-dpr", 1, *node_address])
    try:
        spread = generate(model, "--input", rows, *node_address)
    finally:
        node.kill()
    assert spread == generate(model, "--input", rows)
    assert [line["outputs"][0]["stop_reason"] for line in spread] == [None] * 4
    assert [line["outputs"][0]["finish_reason"] for line in spread] == ["stop"] * 4
