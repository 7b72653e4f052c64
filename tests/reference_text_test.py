"""The trained model's text, as llama2.c prints it for the empty prompt (tests/data/models/README.md)."""
import json

from chorus_process import STORIES_F32, generate


def test_greedy_text_is_that_of_llama2c():
    expected = json.load(open(f"{STORIES_F32}/karpathy_expected_stdout.json", encoding="utf-8"))["text"].rstrip("\n")
    line = generate(STORIES_F32, rows=[{"prompt": "", "temperature": 0, "max_tokens": 200, "ignore_eos": True}])[0]
    text = line["outputs"][0]["text"].strip()
    assert text.startswith(expected[:-1]) or expected.startswith(text), text
    assert len(text) > 300
