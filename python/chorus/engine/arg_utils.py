"""The options of an engine as a value."""
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class EngineArgs:
    """EngineArgs(model, **options): what LLM and AsyncLLM take. Raises TypeError for an option that is none."""

    def __init__(self, model: str, **options: Any):
        from chorus import _engine
        _engine.checked_options(type(self).__name__, options)
        self.model = model
        self.__dict__.update(options)

    def options(self) -> dict[str, Any]:
        return dict(self.__dict__)


class AsyncEngineArgs(EngineArgs):
    """Of AsyncLLM.from_engine_args."""
