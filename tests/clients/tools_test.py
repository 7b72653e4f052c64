"""Tool calls and thoughts through OpenAI's own Python client, against OpenAI's schemas."""
import json
import pathlib
import sys

import openai
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from openai_test import valid  # noqa: E402  pylint: disable=wrong-import-position
from script_model import script_model  # noqa: E402  pylint: disable=wrong-import-position
from serve_tools_test import FAST, HERMES, ONE, TOOLS, TWO  # noqa: E402  pylint: disable=wrong-import-position
from serving import serving  # noqa: E402  pylint: disable=wrong-import-position


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(script_model(tmp_path_factory.mktemp("model"), HERMES), "--served-model-name", "scripts", "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
                 "--reasoning-parser", "qwen3", *FAST) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)


def asked(name, **more):
    return {"model": "scripts", "messages": [{"role": "user", "content": f"<{name}>"}], "temperature": 0, "tools": TOOLS, **more}


def test_whole(client):
    choice = client.chat.completions.create(**asked("hermes")).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content == "I shall look."
    assert [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls] == [("weather", ONE), ("time", TWO)]


def test_the_clients_own_stream(client):
    with client.chat.completions.stream(**asked("hermes")) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert [(event.name, json.loads(event.arguments)) for event in done] == [("weather", ONE), ("time", TWO)]
    assert final.finish_reason == "tool_calls" and len(final.message.tool_calls) == 2


def test_what_was_called_goes_back(client):
    """The next request of an agent: its messages are what the client made of the answer."""
    message = client.chat.completions.create(**asked("hermes")).choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "<hermes-text>"} for call in message.tool_calls]
    body = asked("hermes")
    body["messages"] = [*body["messages"], message.model_dump(exclude_none=True), *results]
    assert client.chat.completions.create(**body).choices[0].message.content == HERMES["hermes-text"]


def test_thoughts(client):
    message = client.chat.completions.create(**asked("hermes-think-text")).choices[0].message
    assert (message.reasoning, message.content) == ("Easy one.", "It is noon already.")
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked("hermes-think-text", stream=True))]
    assert "".join(getattr(delta, "reasoning", None) or "" for delta in deltas) == "Easy one."
    assert "".join(delta.content or "" for delta in deltas) == "It is noon already."


def test_a_call_cannot_be_forced(client):
    with pytest.raises(openai.BadRequestError, match="forced") as raised:
        client.chat.completions.create(**asked("hermes", tool_choice="required"))
    assert raised.value.param == "tool_choice"


@pytest.mark.parametrize("name", list(HERMES))
def test_all_is_as_openai_describes_it(server, name):
    body = asked(name, logprobs=True, top_logprobs=1)
    valid("CreateChatCompletionResponse", server.post("/v1/chat/completions", body))
    for chunk in server.stream("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}):
        valid("CreateChatCompletionStreamResponse", chunk)
