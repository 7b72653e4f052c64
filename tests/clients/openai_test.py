"""chorus serve through OpenAI's own Python client, and its answers against OpenAI's schemas (tests/data/server/README.md).

Run by `make test-server`, or by hand: pip install openai jsonschema pytest && CHORUS=build/chorus python -m pytest tests/clients"""
import concurrent.futures
import json
import pathlib
import sys
import time

import jsonschema
import openai
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from serve_faults_test import with_template  # noqa: E402  pylint: disable=wrong-import-position
from serving import events, serving  # noqa: E402  pylint: disable=wrong-import-position

SCHEMAS = json.loads((pathlib.Path(__file__).resolve().parent.parent / "data" / "server" / "openai_schemas.json").read_text(encoding="utf-8"))
FAST = ["--threads", "1", "--kv-cache-memory", "32MiB"]
HELLO = [{"role": "system", "content": "Tell stories."}, {"role": "user", "content": [{"type": "text", "text": "Once upon"}, {"type": "text", "text": "a time"}]}]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(with_template(tmp_path_factory.mktemp("model")), "-dp", "2", "--served-model-name", "stories", *FAST,
                 env={"CHORUS_API_KEY": "sk-test"}) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="sk-test", max_retries=0)


def valid(name, value):
    schema = {"$ref": f"#/components/schemas/{name}", **SCHEMAS}
    jsonschema.Draft202012Validator(schema).validate(value)


def without_the_first_of_an_echo(choice):
    """Nothing predicts a prompt's first token: null in OpenAI's and vLLM's answers, which the schema has forgotten."""
    told = choice["logprobs"]
    if told and told["token_logprobs"] and told["token_logprobs"][0] is None:
        for name in told:
            del told[name][0]


KEY = {"Authorization": "Bearer sk-test"}


@pytest.mark.parametrize("body", [
    {"prompt": "Once"}, {"prompt": ["Once", "Twice"], "n": 2, "echo": True, "logprobs": 3}, {"prompt": [5, 6, 7], "max_tokens": 2, "logprobs": 0},
    {"prompt": "Once", "stop": ["."], "max_tokens": 100, "temperature": 0}, {"prompt": "Once", "echo": True, "max_tokens": 0, "logprobs": 1},
])
def test_completions_are_as_openai_describes_them(server, body):
    status, _, answer = server.request("POST", "/v1/completions", body, KEY)
    assert status == 200, answer
    whole = json.loads(answer)
    for choice in whole["choices"]:
        without_the_first_of_an_echo(choice)
    valid("CreateCompletionResponse", whole)
    _, _, streamed = server.request("POST", "/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}, KEY)
    for chunk in events(streamed):
        # A chunk is of the same type (the schema has no other), but its choice ends later.
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
            without_the_first_of_an_echo(choice)
        valid("CreateCompletionResponse", chunk)


@pytest.mark.parametrize("more", [{}, {"logprobs": True, "top_logprobs": 4, "n": 2}, {"max_completion_tokens": 5, "stop": "a"}])
def test_chats_are_as_openai_describes_them(server, more):
    body = {"model": "stories", "messages": HELLO, "max_tokens": 30, **more}
    status, _, answer = server.request("POST", "/v1/chat/completions", body, KEY)
    assert status == 200, answer
    valid("CreateChatCompletionResponse", json.loads(answer))
    _, _, streamed = server.request("POST", "/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}, KEY)
    for chunk in events(streamed):
        valid("CreateChatCompletionStreamResponse", chunk)


def test_the_rest_is_as_openai_describes_it(server):
    valid("ListModelsResponse", json.loads(server.request("GET", "/v1/models", headers=KEY)[2]))
    valid("Model", json.loads(server.request("GET", "/v1/models/stories", headers=KEY)[2]))
    status, _, answer = server.request("POST", "/v1/completions", {"prompt": "a", "model": "other"}, KEY)
    assert status == 404
    error = json.loads(answer)
    error["error"]["code"] = str(error["error"]["code"])  # vLLM's, a number; the client takes both
    valid("ErrorResponse", error)


def test_chats(client):
    answer = client.chat.completions.create(model="stories", messages=HELLO, max_tokens=30, temperature=0, logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content and choice.finish_reason == "length"
    assert len(choice.logprobs.content) == answer.usage.completion_tokens == 30
    stream = client.chat.completions.create(model="stories", messages=HELLO, max_tokens=30, temperature=0, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == choice.message.content
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].usage == answer.usage


def test_completions(client):
    answer = client.completions.create(model="stories", prompt=["Once upon a time", "Lily"], max_tokens=12, n=2, seed=3, temperature=0.9)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    again = client.completions.create(model="stories", prompt=["Once upon a time", "Lily"], max_tokens=12, n=2, seed=3, temperature=0.9)
    assert [choice.text for choice in answer.choices] == [choice.text for choice in again.choices]
    texts = [""] * 4
    for chunk in client.completions.create(model="stories", prompt=["Once upon a time", "Lily"], max_tokens=12, n=2, seed=3, temperature=0.9, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in answer.choices]
    extra = client.completions.create(model="stories", prompt="Once", max_tokens=3, extra_body={"top_k": 5, "min_p": 0.1, "return_token_ids": True})
    assert len(extra.choices[0].token_ids) == 3


def test_errors(client, server):
    with pytest.raises(openai.NotFoundError, match="stories"):
        client.chat.completions.create(model="gpt-4", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(model="stories", prompt="a", n=1000)
    assert raised.value.param == "n" and raised.value.status_code == 400
    with pytest.raises(openai.BadRequestError, match="max_model_len 512"):
        client.completions.create(model="stories", prompt=[5] * 600)
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        client.chat.completions.create(model="stories", messages=HELLO, tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="wrong", max_retries=0).models.list()


def test_models_and_ids(client):
    assert [model.id for model in client.models.list()] == ["stories"]
    raw = client.completions.with_raw_response.create(model="stories", prompt="a", max_tokens=1, extra_headers={"X-Request-Id": "mine"})
    assert raw.headers["x-request-id"] == "mine" and raw.parse().id == "cmpl-mine"


def test_a_client_that_gives_up_ends_its_request(client, server):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.05).completions.create(model="stories", prompt="a", max_tokens=500, n=64, extra_body={"ignore_eos": True})
    deadline = time.monotonic() + 2
    while json.loads(server.request("GET", "/load", headers=KEY)[2])["server_load"] > 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sixty_four_at_once(client):
    def ask(i):
        stream = client.chat.completions.create(model="stories", messages=[{"role": "user", "content": f"Story {i % 4}"}], max_tokens=40, temperature=0, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        texts = list(pool.map(ask, range(64)))
    assert all(texts[i] == texts[i % 4] for i in range(64))
