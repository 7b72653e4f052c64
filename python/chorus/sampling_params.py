"""How tokens are chosen, and when a choice ends."""
from __future__ import annotations

import enum
import json

from chorus import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# vLLM's, which mean nothing here at these values and cannot be given others.
_ONLY = {"detokenize": (True, False), "spaces_between_special_tokens": (True,), "flat_logprobs": (False,), "extra_args": (None,),
         "skip_clone": (True, False), "skip_reading_prefix_cache": (None, False), "output_kind": None}
_DEFAULTS = {
    "n": 1, "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "temperature": 1.0, "top_p": 1.0, "top_k": 0,
    "min_p": 0.0, "seed": None, "stop": None, "stop_token_ids": None, "ignore_eos": False, "max_tokens": 16, "min_tokens": 0,
    "logprobs": None, "prompt_logprobs": None, "logprob_token_ids": None, "skip_special_tokens": True, "include_stop_str_in_output": False,
    "logit_bias": None, "allowed_token_ids": None, "bad_words": None, "truncate_prompt_tokens": None, "detokenize": True}


class RequestOutputKind(enum.Enum):
    """What each output of AsyncLLM.generate holds."""
    CUMULATIVE = 0  # all text and tokens so far
    DELTA = 1       # what has come since the output before
    FINAL_ONLY = 2  # there is one output, at the end


class SamplingParams:
    """The sampling parameters of a request, by vLLM's names and with its defaults.

    n: choices a prompt, 1 to 128. temperature: 0 is greedy. top_p: (0, 1]. top_k: 0 or -1 is all. min_p: [0, 1].
    presence_penalty, frequency_penalty: [-2, 2]. repetition_penalty: [0.01, 100]. seed: of the random numbers; None: made from the
    engine's seed and the prompt. max_tokens: None is as many as the context holds. min_tokens: before them nothing ends the output.
    stop, stop_token_ids: texts and tokens that end it. logprobs, prompt_logprobs: the K likeliest tokens at each position beside the
    chosen one. logit_bias: {token id: [-100, 100]}. allowed_token_ids, bad_words: what alone may come, and what may not.

    Further parameters are those of `chorus generate --help`. Raises ValueError (the parameter, its value, what is accepted) and
    TypeError (no such parameter, and the nearest).
    """

    def __init__(self, n: int = 1, presence_penalty: float = 0.0, frequency_penalty: float = 0.0, repetition_penalty: float = 1.0,
                 temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0, seed: int | None = None,
                 stop: str | list[str] | None = None, stop_token_ids: list[int] | None = None, ignore_eos: bool = False,
                 max_tokens: int | None = 16, min_tokens: int = 0, logprobs: int | None = None, prompt_logprobs: int | None = None,
                 detokenize: bool = True, skip_special_tokens: bool = True, include_stop_str_in_output: bool = False,
                 output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE, logit_bias: dict[int, float] | None = None,
                 allowed_token_ids: list[int] | None = None, bad_words: list[str] | None = None, **further: Any):
        given = dict(locals())
        for name in ("self", "further", "__class__"):
            given.pop(name, None)
        self.__dict__.update(_DEFAULTS)
        self.__dict__.update(given)
        self.__dict__.update(further)
        self.stop = [stop] if isinstance(stop, str) else list(stop or [])
        self._native_options()

    @classmethod
    def from_optional(cls, **given: Any) -> SamplingParams:
        """With the defaults for what is None."""
        return cls(**{name: value for name, value in given.items() if value is not None or name == "max_tokens"})

    def clone(self) -> SamplingParams:
        return type(self)(**{name: value for name, value in self.__dict__.items()})

    def _options(self) -> dict:
        """The options of the engine, as JSON takes them."""
        options = {}
        for name, value in self.__dict__.items():
            if name in _ONLY:
                if _ONLY[name] is not None and value not in _ONLY[name]:
                    raise ValueError(f"{name} is {value!r}: accepted: {', '.join(map(repr, _ONLY[name]))}")
            elif name == "max_tokens" or value is not None:
                options[name] = value
        if not isinstance(self.output_kind, RequestOutputKind):
            raise ValueError(f"output_kind is {self.output_kind!r}: give a RequestOutputKind")
        if not options["stop"]:
            del options["stop"]
        if self.logit_bias:
            options["logit_bias"] = {str(int(token)): bias for token, bias in self.logit_bias.items()}
        return options

    def _json(self) -> str:
        try:
            return json.dumps(self._options(), allow_nan=False, default=_plain)
        except ValueError as error:
            raise ValueError(f"{self!r}: {error}") from None

    def _native_options(self):
        for name in self.__dict__:
            if name not in _DEFAULTS and name not in _ONLY and name not in _native.sampling_option_names():
                try:
                    _native.SamplingOptions.from_json(json.dumps({name: 0}))
                except ValueError as error:
                    raise TypeError(f"SamplingParams: {error}") from None
        return _native.SamplingOptions.from_json(self._json())

    def __repr__(self) -> str:
        unchanged = {**_DEFAULTS, "stop": [], "output_kind": RequestOutputKind.CUMULATIVE}
        changed = (f"{name}={value!r}" for name, value in self.__dict__.items() if name not in unchanged or value != unchanged[name])
        return f"SamplingParams({', '.join(changed)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SamplingParams) and self.__dict__ == other.__dict__

    __hash__ = None


def _plain(value):
    """numpy's numbers and sets, for JSON."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value)
    raise ValueError(f"{value!r} is no value of a sampling parameter")
