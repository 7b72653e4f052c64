"""Progress on stderr, where tqdm is installed."""
from __future__ import annotations


class Progress:
    """A bar over `total` requests; none without tqdm, or where it is not wanted. `wanted`: True, False, or a tqdm of one's own."""

    def __init__(self, wanted, total: int):
        self._bar = None
        make = wanted if callable(wanted) else None
        if wanted is True:
            try:
                from tqdm import tqdm as make
            except ImportError:
                return
        if make is not None:
            self._bar = make(total=total, desc="Processed prompts", dynamic_ncols=True, unit=" prompts")

    def show(self, finished: int, output_tokens: int) -> None:
        if self._bar is None:
            return
        self._bar.update(finished - self._bar.n)
        elapsed = self._bar.format_dict["elapsed"]
        if elapsed > 0:
            self._bar.set_postfix_str(f"output: {output_tokens / elapsed:.1f} toks/s", refresh=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
