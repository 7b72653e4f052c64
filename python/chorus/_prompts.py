"""Prompts as programs give them: texts, lists of token ids, dicts."""
from __future__ import annotations

_DICT_KEYS = ("prompt", "prompt_token_ids")
# vLLM's, of which an empty one says nothing.
_UNUSED_KEYS = ("multi_modal_data", "mm_processor_kwargs", "multi_modal_uuids", "prompt_embeds", "cache_salt")


def _is_ids(value) -> bool:
    return not isinstance(value, (str, bytes, dict)) and hasattr(value, "__iter__")


def engine_prompt(prompt, where: str):
    """A text or a list of token ids. Raises TypeError, ValueError."""
    if isinstance(prompt, dict):
        for key, value in prompt.items():
            if key not in _DICT_KEYS and not (key in _UNUSED_KEYS and not value):
                raise ValueError(f"{where} has {key!r}: give one of \"prompt\", \"prompt_token_ids\"")
        if prompt.get("prompt_token_ids") is not None:
            prompt = prompt["prompt_token_ids"]
        elif "prompt" in prompt:
            prompt = prompt["prompt"]
        else:
            raise ValueError(f"{where} has neither \"prompt\" nor \"prompt_token_ids\"")
    if isinstance(prompt, str) or _is_ids(prompt):
        return prompt
    raise TypeError(f"{where} is {type(prompt).__name__}: give a text, a list of token ids, or a dict of one of them")


def engine_prompts(prompts) -> list:
    """Of one prompt or a sequence of them."""
    if isinstance(prompts, (str, dict)):
        prompts = [prompts]
    else:
        prompts = list(prompts)
        if prompts and hasattr(prompts[0], "__index__"):
            prompts = [prompts]  # the token ids of one
    return [engine_prompt(prompt, f"prompt {i}") for i, prompt in enumerate(prompts)]


def per_prompt(name: str, value, count: int, default) -> list:
    """`value` for each of `count` prompts: it may be one for all, or a sequence of as many. Raises ValueError."""
    if value is None:
        return [default] * count
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} are {len(value)} and prompts {count}: give one for all, or one for each")
    return [default if one is None else one for one in value]
