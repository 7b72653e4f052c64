"""Configuration as values."""
from __future__ import annotations


class ParallelConfig:
    """How an engine is split, by vLLM's names. World size is the workers of one replica, world_size_across_dp those of all;
    rank order is dp, pp, cp, tp with tp fastest. Raises ValueError."""
    _SIZES = ("data_parallel_size", "tensor_parallel_size", "pipeline_parallel_size", "decode_context_parallel_size")

    def __init__(self, data_parallel_size: int = 1, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1,
                 decode_context_parallel_size: int = 1, enable_expert_parallel: bool = False, data_parallel_rank: int = 0,
                 data_parallel_backend: str = "mp", distributed_executor_backend: str = "mp", rank: int = 0):
        self.data_parallel_size = data_parallel_size
        self.tensor_parallel_size = tensor_parallel_size
        self.pipeline_parallel_size = pipeline_parallel_size
        self.decode_context_parallel_size = decode_context_parallel_size
        self.enable_expert_parallel = enable_expert_parallel
        self.data_parallel_rank = data_parallel_rank
        self.data_parallel_backend = data_parallel_backend
        self.distributed_executor_backend = distributed_executor_backend
        self.rank = rank
        for name in self._SIZES:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}: give a whole number from 1 on")
        if not 0 <= data_parallel_rank < data_parallel_size:
            raise ValueError(f"data_parallel_rank is {data_parallel_rank!r}: give 0 to {data_parallel_size - 1}")

    @property
    def world_size(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.decode_context_parallel_size

    @property
    def world_size_across_dp(self) -> int:
        return self.data_parallel_size * self.world_size

    def rank_of(self, dp: int = 0, pp: int = 0, cp: int = 0, tp: int = 0) -> int:
        """The world rank at these coordinates."""
        rank = dp * self.pipeline_parallel_size + pp
        return (rank * self.decode_context_parallel_size + cp) * self.tensor_parallel_size + tp

    def coordinates_of(self, rank: int) -> dict[str, int]:
        """The coordinates of a world rank: {"dp", "pp", "cp", "tp"}."""
        rest, tp = divmod(rank, self.tensor_parallel_size)
        rest, cp = divmod(rest, self.decode_context_parallel_size)
        dp, pp = divmod(rest, self.pipeline_parallel_size)
        return {"dp": dp, "pp": pp, "cp": cp, "tp": tp}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParallelConfig) and self.__dict__ == other.__dict__

    __hash__ = None

    def __repr__(self) -> str:
        return f"ParallelConfig({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"
