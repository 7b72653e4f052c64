"""`chorus tokenize` against the reference libraries: the ids and texts of `tokenizers`, the renderings of jinja2."""
import json

import pytest

from chorus_process import ROOT, STORIES, chorus

DATA = ROOT / "tests" / "data"
TOKENIZERS = sorted(path.parent for path in (DATA / "tokenizers").glob("*/vectors.json"))
CHATS = json.loads((DATA / "chat_templates" / "expected.json").read_text(encoding="utf-8"))


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def answers(done, status=0):
    assert done.returncode == status, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.split(b"\n")[:-1]]


def tokenize_lines(directory, rows, *options, status=0):
    return answers(chorus("tokenize", directory, "--jsonl", *options, stdin=lines(rows)), status)


@pytest.fixture(scope="module", params=TOKENIZERS, ids=lambda path: path.name)
def tokenizer(request):
    return request.param, json.loads((request.param / "vectors.json").read_text(encoding="utf-8"))


def test_there_are_tokenizers():
    assert len(TOKENIZERS) >= 8


def test_texts_to_ids(tokenizer):
    directory, vectors = tokenizer
    rows = [{"text": case["text"]} for case in vectors["cases"]]
    assert tokenize_lines(directory, rows, "--no-add-special-tokens") == [{"ids": case["ids"]} for case in vectors["cases"]]
    assert tokenize_lines(directory, rows) == [{"ids": case.get("ids_with_special", case["ids"])} for case in vectors["cases"]]


def test_ids_to_texts(tokenizer):
    directory, vectors = tokenizer
    rows = [{"ids": case["ids"]} for case in vectors["cases"] + vectors["decode"]]
    expected = [case["decoded"] for case in vectors["cases"]] + [case["text"] for case in vectors["decode"]]
    assert tokenize_lines(directory, rows) == [{"text": text} for text in expected]
    rows = [{"ids": case["ids"]} for case in vectors["cases"]]
    skipped = tokenize_lines(directory, rows, "--skip-special-tokens")
    assert skipped == [{"text": case["decoded_skip_special"]} for case in vectors["cases"]]


def test_plain_text_and_back():
    directory = DATA / "tokenizers" / "gpt-2"
    text = " Snow falls 雪\r\n\n\tor not \n".encode()
    done = chorus("tokenize", directory, stdin=text)
    assert done.returncode == 0 and done.stdout.endswith(b"\n") and done.stdout.count(b"\n") == 1
    ids = [int(word) for word in done.stdout.split()]
    assert [{"ids": ids}] == tokenize_lines(directory, [{"text": text.decode()}])
    assert chorus("tokenize", directory, "--decode", stdin=done.stdout).stdout == text
    assert chorus("tokenize", directory, "--decode", stdin=json.dumps(ids).encode()).stdout == text
    assert chorus("tokenize", directory, stdin=b"").stdout == b"\n"
    assert chorus("tokenize", directory, "--decode", stdin=b"").stdout == b""


def test_special_tokens_of_plain_text():
    directory = DATA / "tokenizers" / "llama-2"
    assert chorus("tokenize", directory, stdin=b"Hi").stdout == b"1 6324\n"
    assert chorus("tokenize", directory, "--no-add-special-tokens", stdin=b"Hi").stdout == b"6324\n"
    assert chorus("tokenize", directory, "--decode", stdin=b"1 6324").stdout == b"<s> Hi"
    assert chorus("tokenize", directory, "--decode", "--skip-special-tokens", stdin=b"1 6324").stdout == b"Hi"


def test_errors_are_of_their_line_alone():
    rows = [{"text": "a"}, {"text": 1}, {}, {"ids": [-1]}, {"ids": [10**9]}, {"ids": ["1"]}, {"text": "a", "ids": []}, {"text": "a"}]
    done = chorus("tokenize", DATA / "tokenizers" / "gpt-2", "--jsonl", stdin=lines(rows) + b"{not json\n" + b'{"text": "\xff"}\n')
    found = answers(done, status=3)
    assert [list(answer) for answer in found] == [["ids"]] + [["error"]] * 6 + [["ids"]] + [["error"]] * 2
    assert found[0] == found[7]
    assert b"8 lines failed" in done.stderr


@pytest.mark.parametrize("arguments, stdin, words", [
    (["nowhere"], b"", "nowhere"),
    ([DATA / "chat_templates"], b"", "tokenizer.json"),
    ([DATA / "tokenizers" / "gpt-2", "--decode"], b"1 x", "ids separated by white space"),
    ([DATA / "tokenizers" / "gpt-2", "--decode"], b"50257", "50257"),
    ([DATA / "tokenizers" / "gpt-2"], b"\xff", "UTF-8"),
    ([DATA / "tokenizers" / "gpt-2", "--decode", "--jsonl"], b"", "give one"),
    ([DATA / "tokenizers" / "gpt-2", "--render-chat", "nowhere.jsonl"], b"", "nowhere.jsonl"),
])
def test_wrong_usage(arguments, stdin, words):
    done = chorus("tokenize", *arguments, stdin=stdin)
    assert done.returncode == 2 and done.stdout == b"", done
    assert words in done.stderr.decode()


def chat_rows(template):
    conversations = {conversation["name"]: conversation for conversation in CHATS["conversations"]}
    source = (DATA / "chat_templates" / "templates" / template).read_text(encoding="utf-8")
    for expected in CHATS["results"][template]:
        conversation = conversations[expected["conversation"]]
        row = {"messages": conversation["messages"], "add_generation_prompt": expected["add_generation_prompt"],
               "now": CHATS["strftime_now"], **CHATS["special"], **conversation.get("kwargs", {})}
        if "tools" in conversation:
            row["tools"] = conversation["tools"]
        yield source, row, expected


def compare_chats(found, expected):
    assert len(found) == len(expected)
    for answer, wanted in zip(found, expected):
        if "output" in wanted:
            assert answer == {"text": wanted["output"]}, wanted["conversation"]
        else:
            assert list(answer) == ["error"] and answer["error"].endswith(wanted["error"]), wanted["conversation"]


def test_chats_with_the_template_in_the_line(tmp_path):
    rows, expected = [], []
    for template in CHATS["results"]:
        for source, row, wanted in chat_rows(template):
            rows.append({**row, "chat_template": source})
            expected.append(wanted)
    assert len(rows) > 1000
    path = tmp_path / "chats.jsonl"
    path.write_bytes(lines(rows))
    compare_chats(answers(chorus("tokenize", tmp_path, "--render-chat", path), status=3), expected)


@pytest.mark.parametrize("template", ["llamacpp-Qwen-Qwen2.5-7B-Instruct.jinja", "llamacpp-meta-llama-Llama-3.1-8B-Instruct.jinja"])
@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
def test_chats_with_the_models_template(tmp_path, template, where):
    cases = list(chat_rows(template))
    config = dict(CHATS["special"])
    config["eos_token"] = {"content": config["eos_token"], "lstrip": False, "special": True}
    if where == "tokenizer_config.json":
        config["chat_template"] = [{"name": "other", "template": "no"}, {"name": "default", "template": cases[0][0]}]
    else:
        (tmp_path / where).write_text(cases[0][0], encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    rows = [{key: value for key, value in row.items() if key not in CHATS["special"]} for _, row, _ in cases]
    status = 3 if any("error" in wanted for _, _, wanted in cases) else 0
    done = chorus("tokenize", tmp_path, "--render-chat", "-", stdin=lines(rows))
    compare_chats(answers(done, status), [wanted for _, _, wanted in cases])


def test_the_clock_of_a_chat(tmp_path):
    row = {"messages": [], "chat_template": "{{ strftime_now('%Y-%m-%d %H:%M') }}"}
    nows = ["2026-01-15T12:00:00", "2026-01-15T12:00:00Z", 1768478400, 1768478400.9]
    done = chorus("tokenize", tmp_path, "--render-chat", "-", stdin=lines([{**row, "now": now} for now in nows] + [{**row, "now": "noon"}]))
    found = answers(done, status=3)
    assert found[:-1] == [{"text": "2026-01-15 12:00"}] * len(nows)
    assert "noon" in found[-1]["error"]


def test_a_model_without_a_template():
    found = answers(chorus("tokenize", STORIES, "--render-chat", "-", stdin=lines([{"messages": []}, {}])), status=3)
    assert "no chat template" in found[0]["error"] and "messages" in found[1]["error"]
