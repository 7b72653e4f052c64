"""AsyncLLM.generate: streams, their end by whoever wants it, and event loops one after the other."""
import asyncio
import contextlib
import pathlib
import sys
import threading

import pytest

from chorus import LLM, AsyncEngineArgs, AsyncLLM, RequestOutputKind, SamplingParams

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import STORIES  # noqa: E402

SMALL = {"max_model_len": 256, "kv_cache_memory": "16MiB", "threads": 1}
PROMPTS = [f"Story {i}: once upon a time" for i in range(40)]
PARAMS = {"temperature": 0.8, "max_tokens": 24, "n": 2, "logprobs": 1}


@pytest.fixture(scope="module")
def engine():
    with AsyncLLM(STORIES, data_parallel_size=2, **SMALL) as made:
        yield made


@pytest.fixture(scope="module")
def whole():
    with LLM(STORIES, **SMALL) as llm:
        return llm.generate(PROMPTS, SamplingParams(**PARAMS), use_tqdm=False)


async def all_of(engine, prompt, kind):
    return [output async for output in engine.generate(prompt, SamplingParams(**PARAMS, output_kind=kind), request_id=prompt)]


def gathered(engine, kind):
    async def run():
        return await asyncio.gather(*(all_of(engine, prompt, kind) for prompt in PROMPTS))
    return asyncio.run(run())


def test_cumulative(engine, whole):
    for outputs, expected in zip(gathered(engine, RequestOutputKind.CUMULATIVE), whole):
        assert outputs[-1].outputs == expected.outputs and outputs[-1].prompt_token_ids == expected.prompt_token_ids
        assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
        for earlier, later in zip(outputs, outputs[1:]):
            assert all(b.text.startswith(a.text) and b.token_ids[:len(a.token_ids)] == a.token_ids for a, b in zip(earlier.outputs, later.outputs))
        assert outputs[-1].request_id == expected.prompt


def test_deltas(engine, whole):
    for outputs, expected in zip(gathered(engine, RequestOutputKind.DELTA), whole):
        for index, choice in enumerate(expected.outputs):
            parts = [output.outputs[index] for output in outputs]
            assert "".join(part.text for part in parts) == choice.text
            assert [token for part in parts for token in part.token_ids] == choice.token_ids
            assert [entry for part in parts for entry in part.logprobs or ()] == choice.logprobs


def test_final_only(engine, whole):
    for outputs, expected in zip(gathered(engine, RequestOutputKind.FINAL_ONLY), whole):
        assert len(outputs) == 1 and outputs[0].outputs == expected.outputs


def test_abort_and_leaving_early(engine):
    endless = SamplingParams(max_tokens=None, ignore_eos=True, n=64)

    async def run():
        outputs = []
        async for output in engine.generate("Once", endless, request_id="one"):
            outputs.append(output)
            await engine.abort(["one", "another"])
        assert outputs[-1].finished and "abort" in {choice.finish_reason for choice in outputs[-1].outputs}

        stream = engine.generate("Once", endless)
        async for output in stream:
            assert not output.finished
            break
        await stream.aclose()

        cancelled = asyncio.create_task(all_of(engine, "Once", RequestOutputKind.CUMULATIVE))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert not engine._streams
    asyncio.run(run())


def test_abort_from_another_thread(engine):
    """In debug mode a loop refuses what another thread does to it; without it, the stream might sleep on."""
    endless = SamplingParams(max_tokens=None, ignore_eos=True, n=64)
    outputs, begun = [], threading.Event()

    async def stream():
        async for output in engine.generate("Once", endless, request_id="far"):
            outputs.append(output)
            begun.set()

    listener = threading.Thread(target=lambda: asyncio.run(asyncio.wait_for(stream(), 30), debug=True))
    listener.start()
    assert begun.wait(30)
    asyncio.run(engine.abort("far"))
    listener.join(30)
    assert not listener.is_alive() and outputs[-1].finished
    assert "abort" in {choice.finish_reason for choice in outputs[-1].outputs}
    assert not engine._streams


def test_abort_of_a_request_whose_loop_is_closed(engine):
    loop = asyncio.new_event_loop()
    stream = engine.generate("Once", SamplingParams(max_tokens=None, ignore_eos=True), request_id="left")
    loop.run_until_complete(anext(stream))
    loop.close()
    asyncio.run(engine.abort("left"))
    with contextlib.suppress(StopIteration):  # runs its `finally` without a loop
        stream.aclose().send(None)
    assert not engine._streams


def test_errors_are_of_their_request(engine):
    async def run():
        async def failing():
            async for _ in engine.generate("x" * 5000, SamplingParams(max_tokens=4)):
                pass
        results = await asyncio.gather(failing(), all_of(engine, "Once", RequestOutputKind.FINAL_ONLY), return_exceptions=True)
        assert isinstance(results[0], ValueError) and "256" in str(results[0])
        assert results[1][0].finished
    asyncio.run(run())


def test_from_engine_args_and_shutdown():
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=STORIES, **SMALL))

    async def run():
        async for _ in engine.generate("Once", SamplingParams(max_tokens=None, ignore_eos=True)):
            engine.shutdown()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(run())
    with pytest.raises(TypeError, match="max-model-len"):
        AsyncEngineArgs(model=STORIES, max_model_length=1)
