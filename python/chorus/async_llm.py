"""Generation as it comes, for asyncio."""
from __future__ import annotations

import asyncio
import contextlib
import itertools
import weakref

from chorus import _engine, _native
from chorus._prompts import engine_prompt
from chorus.outputs import CompletionOutput, RequestOutput, logprobs_of, prompt_logprobs_of
from chorus.sampling_params import RequestOutputKind, SamplingParams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Any

    from chorus.engine.arg_utils import AsyncEngineArgs
    from chorus.llm import Prompt
    from chorus.tokenizer import Tokenizer


class AsyncLLM:
    """As LLM, with a stream of outputs a request. Any event loop of the process may call, also several.

    Raises what LLM raises. An engine that external_launcher's ranks share takes lists of prompts alone: LLM.
    """

    def __init__(self, model: str, **options: Any):
        if options.get("distributed_executor_backend") == "external_launcher":
            raise ValueError("distributed_executor_backend is external_launcher: it is for LLM; use mp, which starts its workers itself")
        self._native = _engine.start("AsyncLLM", model, options, streams=True)
        self._close = _engine.end_with(self, self._native)
        self._numbers = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._mailboxes: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # by event loop
        self.llm_engine = _engine.LLMEngine(self._native)

    @classmethod
    def from_engine_args(cls, engine_args: AsyncEngineArgs, **_: Any) -> AsyncLLM:
        return cls(**engine_args.options())

    async def generate(self, prompt: Prompt, sampling_params: SamplingParams | None = None, request_id: str | None = None, *,
                       lora_request: None = None, priority: int = 0, data_parallel_rank: int | None = None) -> AsyncGenerator[RequestOutput, None]:
        """Yields what the request has said each time it has said more, all of it or what is new (SamplingParams.output_kind); the last one
        is finished. Ending the iteration early, or the task, aborts the request. Raises as LLM.generate."""
        if lora_request is not None:
            raise ValueError("lora_request: this version has no LoRA; leave it out")
        if not self._close.alive:
            raise RuntimeError("this AsyncLLM is closed: make another one")
        params = sampling_params if sampling_params is not None else self.get_default_sampling_params()
        number = next(self._numbers)
        stream = _Stream(request_id or str(number), params, self.llm_engine.tokenizer)
        self._streams[number] = stream
        try:
            self._native.add(number, engine_prompt(prompt, "the prompt"), params._native_options(), priority, data_parallel_rank, True,
                             self._mailbox())
            while not stream.finished:
                output = await stream.next_output()
                if output is not None:
                    yield output
        finally:
            del self._streams[number]
            if not stream.finished:
                self._native.abort(number)

    async def abort(self, request_id: str | list[str]) -> None:
        """Ends requests by their ids, of whatever event loop they are: their last output says finish_reason "abort". Ids of none: nothing."""
        wanted = {request_id} if isinstance(request_id, str) else set(request_id)
        for number, stream in list(self._streams.items()):
            if stream.request_id in wanted and not stream.finished:
                self._native.abort(number)
                stream.end_aborted()

    async def get_tokenizer(self) -> Tokenizer:
        return self.llm_engine.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """vLLM's defaults, with what the model's generation_config.json says."""
        return SamplingParams(**self._native.default_sampling)

    def shutdown(self) -> None:
        """Ends the engines; requests in flight raise RuntimeError."""
        self._close()

    close = shutdown

    def __enter__(self) -> AsyncLLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _mailbox(self):
        """That of the running loop, which takes the deltas out when there are some."""
        loop = asyncio.get_running_loop()
        mailbox = self._mailboxes.get(loop)
        if mailbox is None:
            mailbox = self._mailboxes[loop] = _native.Mailbox()
            loop.add_reader(mailbox.descriptor, _take_mail, mailbox, self._streams)
        return mailbox


def _take_mail(mailbox, streams: dict[int, _Stream]) -> None:
    for delta in mailbox.take():
        stream = streams.get(delta[0])
        if stream is not None:
            stream.take(delta)


class _Stream:
    """One request: what it has said, and whether somebody has heard it. Of one event loop."""

    def __init__(self, request_id: str, params: SamplingParams, tokenizer: Tokenizer):
        self.request_id = request_id
        self.finished = False
        self._params = params
        self._tokenizer = tokenizer
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._told: list = []  # deltas that no output has
        self._output = RequestOutput(request_id, None, None, None, [CompletionOutput(i, "", []) for i in range(params.n)], False)

    def take(self, delta) -> None:
        self._told.append(delta)
        if delta[9] is not None:
            self._error = delta[9]
        self._ended = self._ended or delta[10]
        self._changed.set()

    def end_aborted(self) -> None:
        """Any thread: an event loop may be told from its own thread alone that something has changed."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the output
            self._loop.call_soon_threadsafe(self._end_aborted)

    def _end_aborted(self) -> None:
        for choice in self._output.outputs:
            choice.finish_reason = choice.finish_reason or "abort"
        self._ended = True
        self._changed.set()

    async def next_output(self) -> RequestOutput | None:
        """Waits for more; None where it is not to be shown yet."""
        await self._changed.wait()
        self._changed.clear()
        if self._error is not None:
            self.finished = True
            raise self._error
        kind = self._params.output_kind
        if kind is RequestOutputKind.DELTA:
            for choice in self._output.outputs:
                choice.text, choice.token_ids, choice.logprobs = "", [], None
        for delta in self._told:
            self._add(delta)
        self._told.clear()
        self.finished = self._output.finished = self._ended
        return self._copy() if self._ended or kind is not RequestOutputKind.FINAL_ONLY else None

    def _add(self, delta) -> None:
        _, index, text, token, logprob, finish_reason, stop_reason, prompt, prompt_positions, _, _, dp_rank, cached = delta
        output = self._output
        if prompt is not None:
            output.prompt, output.prompt_token_ids = prompt
        if prompt_positions:
            output.prompt_logprobs = prompt_logprobs_of(prompt_positions, self._tokenizer)
        output.dp_rank = dp_rank if dp_rank >= 0 else output.dp_rank
        output.num_cached_tokens = cached if cached is not None else output.num_cached_tokens
        choice = output.outputs[index]
        choice.text += text if self._params.detokenize else ""
        if token is not None:
            choice.token_ids.append(token)
        if logprob is not None:
            choice.logprobs = choice.logprobs or []
            choice.logprobs += logprobs_of([logprob], self._tokenizer)
            choice.cumulative_logprob = (choice.cumulative_logprob or 0.0) + logprob[1]
        choice.finish_reason = finish_reason or choice.finish_reason
        choice.stop_reason = stop_reason if stop_reason is not None else choice.stop_reason

    def _copy(self) -> RequestOutput:
        """What a caller keeps does not change under it."""
        now = self._output
        choices = [CompletionOutput(one.index, one.text, list(one.token_ids), one.cumulative_logprob,
                                    None if one.logprobs is None else list(one.logprobs), one.finish_reason, one.stop_reason) for one in now.outputs]
        return RequestOutput(now.request_id, now.prompt, now.prompt_token_ids, now.prompt_logprobs, choices, now.finished, None,
                             now.num_cached_tokens, now.dp_rank)
