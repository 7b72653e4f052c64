"""chorus serve takes a chat's output apart: calls of tools in each model's format, thoughts before an answer; streamed and not, the same to the byte."""
import json

import pytest

from chorus_process import chorus
from script_model import script_model
from serving import serving

FAST = ["--threads", "1", "--kv-cache-memory", "16MiB"]
TOOLS = [{"type": "function", "function": {"name": name, "description": "Something.", "parameters": {"type": "object", "properties": {}}}} for name in ("weather", "time")]
ONE, TWO = {"city": "Paris", "days": [1, 2], "text": "a \"quote\" }"}, {}

HERMES = {
    "hermes": f'I shall look.\n<tool_call>\n{json.dumps({"name": "weather", "arguments": ONE})}\n</tool_call>\n<tool_call>\n{json.dumps({"name": "time", "arguments": TWO})}\n</tool_call>',
    "hermes-text": "No <tool is needed here: 5 < 6.",
    "hermes-think": f'<think>Hm, they want both.</think>\n\n<tool_call>{json.dumps({"arguments": ONE, "name": "weather"})}</tool_call>',
    "hermes-think-text": "<think>Easy one.</think>It is noon already.",
}
LLAMA = {
    "llama": json.dumps({"name": "weather", "parameters": ONE}) + "; " + json.dumps({"name": "time", "parameters": TWO}),
    "llama-text": '{"answer": "JSON that is no call"}',
}
MISTRAL = {
    "mistral": "[TOOL_CALLS] " + json.dumps([{"name": "weather", "arguments": ONE}, {"name": "time", "arguments": TWO}]),
    "mistral-text": "Nothing [to call] today.",
}


def put_together(chunks):
    """The message that a stream's deltas make, and its finish reason."""
    message, finish = {"role": None, "content": "", "reasoning": "", "tool_calls": []}, None
    for chunk in chunks:
        for choice in chunk["choices"]:
            assert finish is None
            finish, delta = choice["finish_reason"], choice["delta"]
            message["role"] = delta.get("role", message["role"])
            for name in ("content", "reasoning"):
                message[name] += delta.get(name) or ""
            for call in delta.get("tool_calls", []):
                if call["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append({"id": call["id"], "type": call["type"], "function": {"name": call["function"]["name"], "arguments": ""}})
                message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message, finish


def ask(server, name, **more):
    body = {"messages": [{"role": "user", "content": f"<{name}>"}], "temperature": 0, "tools": TOOLS, **more}
    whole = server.post("/v1/chat/completions", body)["choices"][0]
    message, finish = put_together(server.stream("/v1/chat/completions", body))
    calls = [[call["function"] for call in one.get("tool_calls", [])] for one in (message, whole["message"])]
    assert calls[0] == calls[1] and finish == whole["finish_reason"] and message["role"] == whole["message"]["role"] == "assistant"
    for part in ("content", "reasoning"):
        assert message[part] == (whole["message"].get(part) or "")
    ids = [call["id"] for call in whole["message"].get("tool_calls", []) + message["tool_calls"]]
    assert len(set(ids)) == len(ids)
    return whole["message"], finish, ids


@pytest.fixture(scope="module")
def hermes(tmp_path_factory):
    with serving(script_model(tmp_path_factory.mktemp("hermes"), HERMES), "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3", *FAST) as server:
        yield server
        assert server.stop() == 0


def calls_of(message):
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]


def test_hermes(hermes):
    message, finish, ids = ask(hermes, "hermes")
    assert message["content"] == "I shall look." and finish == "tool_calls" and calls_of(message) == [("weather", ONE), ("time", TWO)]
    assert all(one.startswith("chatcmpl-tool-") for one in ids)
    message, finish, _ = ask(hermes, "hermes-text")
    assert message["content"] == HERMES["hermes-text"] and finish == "stop" and "tool_calls" not in message


def test_thoughts_before_calls(hermes):
    message, finish, _ = ask(hermes, "hermes-think")
    assert (message["content"], message["reasoning"], finish) == (None, "Hm, they want both.", "tool_calls")
    assert calls_of(message) == [("weather", ONE)]
    message, finish, _ = ask(hermes, "hermes-think-text", tools=None)
    assert (message["content"], message["reasoning"], finish) == ("It is noon already.", "Easy one.", "stop")
    body = {"messages": [{"role": "user", "content": "<hermes-think-text>"}], "temperature": 0}
    usage = hermes.post("/v1/chat/completions", body)["usage"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]
    assert hermes.stream("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})[-1]["usage"] == usage
    message, _, _ = ask(hermes, "hermes-think-text", include_reasoning=False)
    assert message["content"] == "It is noon already." and "reasoning" not in message


def test_none_leaves_calls_in_the_text(hermes):
    message, finish, _ = ask(hermes, "hermes", tool_choice="none")
    assert message["content"] == HERMES["hermes"] and finish == "stop"


def test_one_call_and_one_that_is_cut_off(hermes):
    message, _, _ = ask(hermes, "hermes", parallel_tool_calls=False)
    assert calls_of(message) == [("weather", ONE)]
    tokens = hermes.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "<hermes>"}], "temperature": 0, "return_token_ids": True})["choices"][0]["token_ids"]
    seen = set()
    for length in range(1, len(tokens), 3):
        message, finish, _ = ask(hermes, "hermes", max_tokens=length)
        assert finish == "length"
        seen.add(len(message.get("tool_calls", [])))
    assert seen == {0, 1, 2}


def test_several_choices_with_logprobs(hermes):
    body = {"messages": [{"role": "user", "content": "<hermes>"}], "temperature": 0, "tools": TOOLS, "n": 3, "logprobs": True, "stream_options": {"include_usage": True}}
    by_index = [[], [], []]
    chunks = hermes.stream("/v1/chat/completions", body)
    entries = 0
    for chunk in chunks[:-1]:
        for choice in chunk["choices"]:
            by_index[choice["index"]].append({"choices": [choice]})
            entries += len((choice["logprobs"] or {"content": []})["content"])
    assert entries == chunks[-1]["usage"]["completion_tokens"]
    messages = [put_together(one)[0] for one in by_index]
    assert [calls_of(message) for message in messages] == [[("weather", ONE), ("time", TWO)]] * 3
    ids = {call["id"] for message in messages for call in message["tool_calls"]}
    assert len(ids) == 6


@pytest.mark.parametrize("special", [(), ("<|python_tag|>",)])
def test_llama(tmp_path, special):
    scripts = {**LLAMA, "llama-tag": "<|python_tag|>" + json.dumps({"type": "function", "name": "weather", "parameters": ONE})} if special else LLAMA
    with serving(script_model(tmp_path, scripts, special), "--enable-auto-tool-choice", "--tool-call-parser", "llama3_json", *FAST) as server:
        message, finish, _ = ask(server, "llama")
        assert calls_of(message) == [("weather", ONE), ("time", TWO)] and finish == "tool_calls" and message["content"] is None
        message, finish, _ = ask(server, "llama-text", tool_choice="auto")
        assert message["content"] == LLAMA["llama-text"] and finish == "stop"
        if special:
            assert calls_of(ask(server, "llama-tag")[0]) == [("weather", ONE)]
        assert server.stop() == 0


@pytest.mark.parametrize("special", [(), ("[TOOL_CALLS]",)])
def test_mistral(tmp_path, special):
    with serving(script_model(tmp_path, MISTRAL, special), "--enable-auto-tool-choice", "--tool-call-parser", "mistral", *FAST) as server:
        message, finish, ids = ask(server, "mistral")
        assert calls_of(message) == [("weather", ONE), ("time", TWO)] and finish == "tool_calls"
        assert all(len(one) == 9 and one.isalnum() for one in ids)
        assert ask(server, "mistral-text")[0]["content"] == MISTRAL["mistral-text"]
        assert server.stop() == 0


@pytest.mark.parametrize("field, value, words", [
    ("tool_choice", "required", "cannot be forced"), ("tool_choice", {"type": "function", "function": {"name": "time"}}, "cannot be forced"),
    ("tools", [{"type": "function"}], "tools: give"), ("tools", [5], "tools: give"), ("parallel_tool_calls", 1, "true or false"),
])
def test_what_is_wrong_is_named(hermes, field, value, words):
    body = {"messages": [{"role": "user", "content": "a"}], "tools": TOOLS, field: value}
    status, _, answer = hermes.request("POST", "/v1/chat/completions", body)
    error = json.loads(answer)["error"]
    assert status == 400 and error["param"] == field and words in error["message"]


def test_auto_needs_a_parser(tmp_path):
    model = script_model(tmp_path, HERMES)
    with serving(model, "--tool-call-parser", "hermes", *FAST) as server:
        body = {"messages": [{"role": "user", "content": "a"}], "tools": TOOLS}
        status, _, answer = server.request("POST", "/v1/chat/completions", body)
        assert status == 400 and "--enable-auto-tool-choice" in json.loads(answer)["error"]["message"]
        status, _, answer = server.request("POST", "/v1/chat/completions", {"messages": body["messages"], "tool_choice": "auto"})
        assert status == 400 and "needs tools" in json.loads(answer)["error"]["message"]
        assert server.post("/v1/chat/completions", {**body, "tool_choice": "none"})["choices"]
        assert server.stop() == 0
    for arguments, words in [(["--enable-auto-tool-choice"], "--tool-call-parser"), (["--tool-call-parser", "x"], "hermes"), (["--reasoning-parser", "x"], "qwen3")]:
        done = chorus("serve", model, *arguments)
        assert done.returncode == 2 and words in done.stderr.decode(), done.stderr
