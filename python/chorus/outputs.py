"""What comes back for a prompt."""
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from chorus.tokenizer import Tokenizer


class _Value:
    """Compared and shown by its members, which __slots__ names."""
    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None


class Logprob(_Value):
    """logprob: natural logarithm, of the raw logits. rank: 1 is the likeliest token; None: it is not among those that were asked
    for. decoded_token: the token's own text."""
    __slots__ = ("logprob", "rank", "decoded_token")

    def __init__(self, logprob: float, rank: int | None = None, decoded_token: str | None = None):
        self.logprob = logprob
        self.rank = rank
        self.decoded_token = decoded_token


class CompletionOutput(_Value):
    """One choice. finish_reason: "stop", "length", "abort"; None while it goes on. stop_reason: the stop text or stop token id that
    ended it; None for the model's own end of sequence. logprobs: for each token {token id: Logprob}."""
    __slots__ = ("index", "text", "token_ids", "cumulative_logprob", "logprobs", "finish_reason", "stop_reason")

    def __init__(self, index: int, text: str, token_ids: list[int], cumulative_logprob: float | None = None,
                 logprobs: list[dict[int, Logprob]] | None = None, finish_reason: str | None = None, stop_reason: int | str | None = None):
        self.index = index
        self.text = text
        self.token_ids = token_ids
        self.cumulative_logprob = cumulative_logprob
        self.logprobs = logprobs
        self.finish_reason = finish_reason
        self.stop_reason = stop_reason

    lora_request = None

    def finished(self) -> bool:
        return self.finish_reason is not None


class RequestMetrics(_Value):
    """Seconds from the request's arrival to its first token and to its end."""
    __slots__ = ("first_token_latency", "latency")

    def __init__(self, first_token_latency: float, latency: float):
        self.first_token_latency = first_token_latency
        self.latency = latency


class RequestOutput(_Value):
    """All of a request. prompt_logprobs: for each token of the prompt {token id: Logprob}, None for the first. dp_rank: the
    data-parallel rank that computed it. num_cached_tokens: of the prompt, that the prefix cache had; None: not told."""
    __slots__ = ("request_id", "prompt", "prompt_token_ids", "prompt_logprobs", "outputs", "finished", "metrics", "num_cached_tokens", "dp_rank")

    def __init__(self, request_id: str, prompt: str | None, prompt_token_ids: list[int] | None,
                 prompt_logprobs: list[dict[int, Logprob] | None] | None, outputs: list[CompletionOutput], finished: bool,
                 metrics: RequestMetrics | None = None, num_cached_tokens: int | None = None, dp_rank: int | None = None):
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.prompt_logprobs = prompt_logprobs
        self.outputs = outputs
        self.finished = finished
        self.metrics = metrics
        self.num_cached_tokens = num_cached_tokens
        self.dp_rank = dp_rank

    lora_request = None


def logprobs_of(positions, tokenizer: Tokenizer) -> list[dict[int, Logprob]]:
    """From the engine's (token, logprob, [(token, logprob), ..])."""
    text = tokenizer.token_text
    result = []
    for token, logprob, top in positions:
        entries = {token: Logprob(logprob, None, text(token))}
        for rank, (other, its) in enumerate(top, 1):
            entries[other] = Logprob(its, rank, text(other))
        result.append(entries)
    return result


def prompt_logprobs_of(positions, tokenizer: Tokenizer) -> list[dict[int, Logprob] | None]:
    return [None, *logprobs_of(positions, tokenizer)]


def _completion(choice, params, tokenizer) -> CompletionOutput:
    index, text, token_ids, finish_reason, stop_reason, positions = choice
    output = CompletionOutput(index, text if params.detokenize else "", token_ids, None, None, finish_reason, stop_reason)
    if positions:
        output.logprobs = logprobs_of(positions, tokenizer)
        output.cumulative_logprob = sum(logprob for _, logprob, _ in positions)
    return output


def request_output(request_id: str, told, params, tokenizer: Tokenizer) -> RequestOutput:
    """From what the engine has told of a whole request (src/outputs.h)."""
    prompt, prompt_token_ids, prompt_positions, choices, dp_rank, ttft_s, latency_s = told
    return RequestOutput(request_id, prompt, prompt_token_ids,
                         prompt_logprobs_of(prompt_positions, tokenizer) if params.prompt_logprobs is not None else None,
                         [_completion(choice, params, tokenizer) for choice in choices], True, RequestMetrics(ttft_s, latency_s), None, dp_rank)
