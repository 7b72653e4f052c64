"""Prompts as dicts, by vLLM's names."""
from __future__ import annotations

from typing import TypedDict


class TextPrompt(TypedDict, total=False):
    """A text that the tokenizer makes token ids of."""
    prompt: str


class TokensPrompt(TypedDict, total=False):
    """Token ids; the text beside them is not read."""
    prompt_token_ids: list[int]
    prompt: str
