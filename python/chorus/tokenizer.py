"""The model's tokenizer and chat template, by the names of transformers."""
from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Tokenizer:
    """What LLM.get_tokenizer() gives. The same ids and texts as the packages tokenizers and transformers give; any thread may call.
    Methods raise ValueError where the model's folder has no tokenizer.json, or an id or a text is none."""

    def __init__(self, native):
        self._native = native
        self._texts: dict[int, str | None] = {}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self._native.encode(text, add_special_tokens)

    def decode(self, token_ids: int | list[int], skip_special_tokens: bool = False) -> str:
        return self._native.decode([token_ids] if isinstance(token_ids, int) else list(token_ids), skip_special_tokens)

    def batch_decode(self, sequences: list[list[int]], skip_special_tokens: bool = False) -> list[str]:
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def apply_chat_template(self, conversation: list[dict], tools: list[dict] | None = None, documents: list[dict] | None = None,
                            chat_template: str | None = None, add_generation_prompt: bool = False, continue_final_message: bool = False,
                            tokenize: bool = True, **variables: Any) -> str | list[int]:
        """The prompt of a conversation: its text, or with `tokenize` its token ids. `variables` are the template's.
        Raises ValueError: the model has no template, or the template fails."""
        text = self.render_chat(conversation, tools=tools, documents=documents, chat_template=chat_template,
                                add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message,
                                chat_template_kwargs=variables or None)
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def render_chat(self, messages: list[dict], **request: Any) -> str:
        """The prompt of a chat request, with its other members by vLLM's names."""
        given = {name: value for name, value in request.items() if value is not None}
        return self._native.render_chat(json.dumps({"messages": messages, **given}))

    def convert_ids_to_tokens(self, ids: int | list[int]) -> str | None | list[str | None]:
        return self._native.token(ids) if isinstance(ids, int) else [self._native.token(id_) for id_ in ids]

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | None | list[int | None]:
        return self._native.id(tokens) if isinstance(tokens, str) else [self._native.id(token) for token in tokens]

    def token_text(self, token_id: int) -> str | None:
        """The text of one token; None without a tokenizer, or of an id that it has not."""
        if token_id not in self._texts:
            known = self._native.is_there and self._native.token(token_id) is not None
            self._texts[token_id] = self._native.decode([token_id], False) if known else None
        return self._texts[token_id]

    @property
    def vocab_size(self) -> int:
        """The highest id and one, added tokens included."""
        return self._native.vocab_size

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def eos_token_id(self) -> int | None:
        """The tokenizer's own end of sequence."""
        own = self._native.eos_token_id
        return own if own is not None and own >= 0 else None

    @property
    def bos_token_id(self) -> int | None:
        ids = self._native.bos_token_ids
        return ids[0] if ids else None

    @property
    def eos_token(self) -> str | None:
        return None if self.eos_token_id is None else self._native.token(self.eos_token_id)

    @property
    def bos_token(self) -> str | None:
        return None if self.bos_token_id is None else self._native.token(self.bos_token_id)
