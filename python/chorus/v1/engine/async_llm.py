"""AsyncLLM, where vLLM has it."""
from chorus.async_llm import AsyncLLM

__all__ = ["AsyncLLM"]
