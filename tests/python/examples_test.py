"""Each program of examples/offline_inference runs; and five programs as vLLM's documents describe them, with the import changed."""
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "launchers"))
from chorus_process import ROOT, STORIES  # noqa: E402
from launched_ranks import VENV  # noqa: E402

EXAMPLES = ROOT / "examples" / "offline_inference"
SITE = os.environ.get("CHORUS_PYTHON_SITE", "")
GREEDY = ", there was a little girl named Lily."


def run(*arguments, python=sys.executable, timeout_s=120, **environment):
    done = subprocess.run([python, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False,
                          env=dict(os.environ, CHORUS_LOG_LEVEL="warning", **environment))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_basic():
    assert run(EXAMPLES / "basic.py").count("Prompt: ") == 4


def test_chat(tmp_path):
    out = run(EXAMPLES / "chat.py")
    assert out.count("assistant:") == 3 and "user: Once upon a time there was a cat." in out
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[-1].content }}", encoding="utf-8")
    assert run(EXAMPLES / "chat.py", "--model", STORIES, "--chat-template", template).count("assistant:") == 3


@pytest.mark.parametrize("dp,tp", [(1, 1), (2, 2), (3, 1)])
def test_data_parallel(dp, tp):
    lines = run(EXAMPLES / "data_parallel.py", "--dp-size", dp, "--tp-size", tp).splitlines()
    counts = [int(line.split(" computed ")[1].split()[0]) for line in lines if " computed " in line]
    assert len(counts) == dp and sum(counts) == 100


def test_priority():
    lines = run(EXAMPLES / "priority.py", "--dp-size", 3).splitlines()
    assert len(lines) == 24
    assert all(("priority -1" in line) == (" on replica 2" in line) for line in lines)
    assert {line.split(":")[0].split(" on ")[1] for line in lines} == {"replica 0", "replica 1", "replica 2"}


@pytest.mark.skipif(not (VENV / "bin" / "ray").exists() or not SITE, reason="no Ray (make test-launchers) or no CHORUS_PYTHON_SITE (make test-python)")
def test_ray(tmp_path):
    out = run(EXAMPLES / "ray_dp.py", "--dp-size", 2, python=VENV / "bin" / "python", timeout_s=180, PYTHONPATH=SITE, HOME=str(tmp_path))  # Ray keeps a token there
    assert [line.split(",")[0] for line in out.splitlines()] == [f"DP rank {i % 2}" for i in range(8)]
    assert f"DP rank 0, prompt: 'Once upon a time', text: '{GREEDY}" in out


PROGRAMS = {"basic": """
    from chorus import LLM, SamplingParams
    prompts = ["Hello, my name is", "Once upon a time"]
    sampling_params = SamplingParams(temperature=0.0, top_p=0.95)
    llm = LLM(model=MODEL, enforce_eager=True, gpu_memory_utilization=0.5)
    outputs = llm.generate(prompts, sampling_params)
    for output in outputs:
        prompt = output.prompt
        generated_text = output.outputs[0].text
        print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")
    assert outputs[1].outputs[0].text.startswith(GREEDY[:20])
""", "chat": """
    from chorus import LLM
    llm = LLM(MODEL)
    sampling_params = llm.get_default_sampling_params()
    sampling_params.max_tokens = 10
    sampling_params.temperature = 0.0
    conversation = [{"role": "system", "content": "You tell stories"}, {"role": "user", "content": [{"type": "text", "text": "Once upon a time"}]}]
    template = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    outputs = llm.chat(conversation, sampling_params, use_tqdm=False, chat_template=template)
    assert outputs[0].prompt == "Once upon a time" and len(outputs[0].outputs[0].token_ids) == 10
    many = llm.chat([conversation for _ in range(10)], sampling_params, chat_template=template)
    assert [one.outputs[0].text for one in many] == [outputs[0].outputs[0].text] * 10
""", "logprobs": """
    from chorus import LLM, SamplingParams
    llm = LLM(model=MODEL, max_model_len=256, seed=0)
    params = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=5, logprobs=5, prompt_logprobs=2, n=2, seed=4)
    for output in llm.generate(["The capital"], params):
        assert output.prompt_logprobs[0] is None
        for token_id, position in zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:]):
            assert token_id in position and all(entry.logprob <= 0 for entry in position.values())
        for completion in output.outputs:
            for token_id, position in zip(completion.token_ids, completion.logprobs):
                best = sorted(position.items(), key=lambda item: item[1].rank or 99)
                print(token_id, [(entry.decoded_token, entry.rank, entry.logprob) for _, entry in best])
                assert 5 <= len(position) <= 6 and [entry.rank for _, entry in best[:5]] == [1, 2, 3, 4, 5]
""", "stop": """
    from chorus import LLM, SamplingParams
    from chorus.inputs import TokensPrompt
    llm = LLM(model=MODEL)
    tokenizer = llm.get_tokenizer()
    ids = tokenizer.encode("Once upon a time")
    dot = tokenizer.encode(".", add_special_tokens=False)[-1]
    stopped = SamplingParams(temperature=0, max_tokens=64, stop=["Lily", "never"])
    included = SamplingParams(temperature=0, max_tokens=64, stop="Lily", include_stop_str_in_output=True)
    by_token = SamplingParams(temperature=0, max_tokens=64, stop_token_ids=[dot], min_tokens=2, allowed_token_ids=None, bad_words=["boy"])
    a, b, c = (one.outputs[0] for one in llm.generate([TokensPrompt(prompt_token_ids=ids)] * 3, [stopped, included, by_token]))
    assert (a.finish_reason, a.stop_reason) == (b.finish_reason, b.stop_reason) == ("stop", "Lily")
    assert not a.text.endswith("Lily") and b.text == a.text + "Lily"
    assert (c.finish_reason, c.stop_reason) == ("stop", dot) and "." not in c.text
""", "async": """
    import asyncio
    from chorus import SamplingParams
    from chorus.engine.arg_utils import AsyncEngineArgs
    from chorus.sampling_params import RequestOutputKind
    from chorus.v1.engine.async_llm import AsyncLLM

    async def stream_response(engine, prompt, request_id):
        sampling_params = SamplingParams(max_tokens=20, temperature=0.8, top_p=0.95, seed=42, output_kind=RequestOutputKind.DELTA)
        text = ""
        async for output in engine.generate(request_id=request_id, prompt=prompt, sampling_params=sampling_params):
            for completion in output.outputs:
                text += completion.text
            if output.finished:
                break
        return text

    async def main():
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=MODEL, enforce_eager=True))
        try:
            texts = [await stream_response(engine, prompt, f"stream-{i}") for i, prompt in enumerate(["Once upon a time", "The dog"], 1)]
            assert all(texts)
        finally:
            engine.shutdown()

    asyncio.run(main())
"""}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_for_vllm(name, tmp_path):
    program = tmp_path / f"{name}.py"
    program.write_text(f"MODEL, GREEDY = {STORIES!r}, {GREEDY!r}\n" + textwrap.dedent(PROGRAMS[name]), encoding="utf-8")
    run(program)


def test_a_notebooks_way():
    """Cells run in an event loop that is running already, and on whatever thread."""
    code = f"""
        import asyncio
        from chorus import LLM, SamplingParams

        async def cell():
            llm = LLM({STORIES!r}, max_model_len=128)
            return llm.generate("Once upon a time", SamplingParams(temperature=0, max_tokens=9), use_tqdm=False)[0].outputs[0].text

        async def in_thread():
            return await asyncio.to_thread(lambda: asyncio.run(cell()))

        print(asyncio.run(cell()) == asyncio.run(in_thread()))
    """
    assert run("-c", textwrap.dedent(code)) == "True\n"
