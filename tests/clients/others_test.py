"""Smoke tests: what stands on OpenAI's API elsewhere gets its answers from chorus serve."""
import json
import os
import pathlib
import subprocess
import sys

import langchain_openai
import litellm
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from script_model import script_model  # noqa: E402  pylint: disable=wrong-import-position
from serve_tools_test import FAST, HERMES, ONE, TOOLS, TWO  # noqa: E402  pylint: disable=wrong-import-position
from serving import serving  # noqa: E402  pylint: disable=wrong-import-position

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydantic, about its own types
TEXT = HERMES["hermes-text"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(script_model(tmp_path_factory.mktemp("model"), HERMES), "--served-model-name", "scripts", "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
                 "--reasoning-parser", "qwen3", *FAST, env={"CHORUS_API_KEY": "sk-test"}) as running:
        yield f"http://127.0.0.1:{running.port}/v1"
        assert running.stop() == 0


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm(url, provider):
    def ask(name, **more):
        return litellm.completion(model=f"{provider}/scripts", api_base=url, api_key="sk-test", temperature=0, messages=[{"role": "user", "content": f"<{name}>"}], **more)
    assert ask("hermes-text").choices[0].message.content == TEXT
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask("hermes-text", stream=True)) == TEXT
    calls = ask("hermes", tools=TOOLS).choices[0]
    assert calls.finish_reason == "tool_calls" and [call.function.name for call in calls.message.tool_calls] == ["weather", "time"]
    assert ask("hermes-think-text").choices[0].message.reasoning_content == "Easy one."


def test_litellm_sees_errors(url):
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(model="openai/scripts", api_base=url, api_key="wrong", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/other", api_base=url, api_key="sk-test", messages=[{"role": "user", "content": "a"}])


def test_llm(url, tmp_path):
    models = [{"model_id": name, "model_name": "scripts", "api_base": url, "api_key_name": "ours", "completion": name == "text"} for name in ("chat", "text")]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # which is YAML too
    (tmp_path / "keys.json").write_text('{"ours": "sk-test"}')
    program = pathlib.Path(sys.executable).with_name("llm")
    for model in ("chat", "text"):
        for stream in ([], ["--no-stream"]):
            done = subprocess.run([program, "-m", model, "-o", "temperature", "0", "-o", "max_tokens", "200", *stream, "<hermes-text>"],
                                  env={**os.environ, "LLM_USER_PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
            assert done.returncode == 0 and done.stdout.strip() == TEXT, done.stderr


def test_langchain(url):
    chat = langchain_openai.ChatOpenAI(base_url=url, api_key="sk-test", model="scripts", temperature=0)
    assert chat.invoke("<hermes-text>").content == TEXT
    assert "".join(chunk.content for chunk in chat.stream("<hermes-text>")) == TEXT
    answer = chat.bind_tools(TOOLS).invoke("<hermes>")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", ONE), ("time", TWO)]
    assert answer.usage_metadata["output_tokens"] > 10
    complete = langchain_openai.OpenAI(base_url=url, api_key="sk-test", model="scripts", temperature=0, max_tokens=200)
    assert complete.invoke("<hermes-text>") == TEXT
