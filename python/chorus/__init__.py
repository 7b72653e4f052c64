"""Chorus: data-parallel LLM inference, the same request gives the same tokens.

    from chorus import LLM, SamplingParams

    with LLM("models/stories260k", data_parallel_size=2) as llm:
        for output in llm.generate(["Once upon a time"], SamplingParams(temperature=0, max_tokens=32)):
            print(output.outputs[0].text)

Names and shapes are those of vLLM's offline API: docs/python.md says where the two differ.
"""
try:
    from chorus._native import version as __version__
except ImportError as error:
    if "cannot open shared object file" not in str(error):
        raise
    raise ImportError(f"{error}. The wheel of chorus is for Debian 12, and there needs: apt-get install libedit2 libfmt9 libicu72 libpcre2-8-0 "
                      "libsimdjson14 libssl3; elsewhere build it from a clone: pip install . (docs/python.md)", name="chorus") from None

from chorus.config import ParallelConfig
from chorus.llm import LLM
from chorus.outputs import CompletionOutput, Logprob, RequestOutput
from chorus.sampling_params import RequestOutputKind, SamplingParams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from chorus.async_llm import AsyncLLM
    from chorus.engine.arg_utils import AsyncEngineArgs, EngineArgs
    from chorus.inputs import TextPrompt, TokensPrompt

__all__ = ["LLM", "AsyncEngineArgs", "AsyncLLM", "CompletionOutput", "EngineArgs", "Logprob", "ParallelConfig", "RequestOutput",
           "RequestOutputKind", "SamplingParams", "TextPrompt", "TokensPrompt", "__version__"]

# Imported when they are asked for: asyncio and typing take longer than all of the rest.
_LATER = {"AsyncLLM": "chorus.async_llm", "AsyncEngineArgs": "chorus.engine.arg_utils", "EngineArgs": "chorus.engine.arg_utils",
          "TextPrompt": "chorus.inputs", "TokensPrompt": "chorus.inputs"}


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module 'chorus' has no attribute {name!r}")
    import importlib
    return getattr(importlib.import_module(_LATER[name]), name)
