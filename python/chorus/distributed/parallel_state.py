"""Groups of the ranks that a launcher started, by vLLM's names: get_world_group(), get_tp_group(), get_pp_group(), get_dp_group().

They are there once an LLM is made. Without a launcher each is a group of this one process. What a group does goes between the processes
that call it, beside the engine: every rank of the group calls the same functions in the same order.
"""
from __future__ import annotations

import os
import threading

from chorus import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy

    from chorus.config import ParallelConfig

# The groups of a world share its messages.
one_at_a_time = threading.RLock()
_groups: dict[str, GroupCoordinator] = {}


class GroupCoordinator:
    """Some ranks of a world. rank: this process's, in the world; ranks: the group's; rank_in_group: of this process among them.

    Collectives take and give numpy arrays, of one dtype and shape on all ranks; a rank that is missing is waited for, and Ctrl-C ends
    the wait. Raises RuntimeError when a rank of the world is gone.
    """

    def __init__(self, name: str, world: _native.RankWorld, ranks: list[int], rank: int, native: _native.RankGroup | None = None):
        self.unique_name = name
        self.ranks = ranks
        self.rank = rank
        self._native = native or _native.RankGroup(world, ranks)
        self._cpu_group = None

    @property
    def world_size(self) -> int:
        return self._native.size

    @property
    def rank_in_group(self) -> int:
        return self._native.rank

    @property
    def local_rank(self) -> int:
        return int(os.environ.get("LOCAL_RANK", self.rank))

    @property
    def first_rank(self) -> int:
        return self.ranks[0]

    @property
    def last_rank(self) -> int:
        return self.ranks[-1]

    @property
    def is_first_rank(self) -> bool:
        return self.rank == self.first_rank

    @property
    def is_last_rank(self) -> bool:
        return self.rank == self.last_rank

    @property
    def cpu_group(self):
        """A gloo group of torch.distributed where torch is installed and runs under torchrun, or is initialised already; else an object
        with rank(), size() and this group's collectives. All ranks of the group ask for it first at the same time."""
        if self._cpu_group is None:
            self._cpu_group = _torch_group(self.ranks) or CpuGroup(self)
        return self._cpu_group

    def all_reduce(self, array: numpy.ndarray) -> numpy.ndarray:
        """The sum over ranks, added in rank order: the same bits on every rank."""
        import numpy
        arrays = self._gather(array)
        total = arrays[0].copy()
        for other in arrays[1:]:
            numpy.add(total, other, out=total)
        return total

    def all_gather(self, array: numpy.ndarray, dim: int = -1) -> numpy.ndarray:
        """All ranks' arrays, one after the other along `dim`."""
        import numpy
        return numpy.concatenate(self._gather(array), axis=dim)

    def broadcast(self, array: numpy.ndarray, src: int = 0) -> numpy.ndarray:
        """The array of rank_in_group `src`, which is also written to `array`."""
        result = self._gather(array)[src]
        array[...] = result
        return result

    def broadcast_object(self, value: Any = None, src: int = 0) -> Any:
        """A value that pickle takes, of rank_in_group `src`."""
        import pickle
        return pickle.loads(self._exchange(pickle.dumps(value if self.rank_in_group == src else None))[src])

    def barrier(self) -> None:
        """Returns on no rank before every rank has called it."""
        self._exchange(b"")

    def _exchange(self, message: bytes) -> list[bytes]:
        with one_at_a_time:
            return self._native.all_gather(message)

    def _gather(self, array: numpy.ndarray) -> list[numpy.ndarray]:
        import numpy
        own = numpy.asarray(array)
        if own.dtype.hasobject:
            raise TypeError(f"{self.unique_name}: an array of Python objects; give numbers, or use broadcast_object()")
        head = f"{own.dtype.str} {own.shape}\n".encode()
        messages = self._exchange(head + own.tobytes())
        for rank, message in enumerate(messages):
            if not message.startswith(head):
                raise ValueError(f"{self.unique_name}: rank {rank} of the group gives {message.split(bytes([10]), 1)[0].decode()}, "
                                 f"rank {self.rank_in_group} {head.decode().strip()}: dtype and shape must be the same")
        return [numpy.frombuffer(message, own.dtype, offset=len(head)).reshape(own.shape) for message in messages]


class CpuGroup:
    """What stands for a process group of torch where there is none."""

    def __init__(self, group: GroupCoordinator):
        self._group = group
        self.all_reduce = group.all_reduce
        self.all_gather = group.all_gather
        self.broadcast = group.broadcast
        self.barrier = group.barrier

    def rank(self) -> int:
        return self._group.rank_in_group

    def size(self) -> int:
        return self._group.world_size


def _torch_group(ranks: list[int]):
    """Torch meets at the launcher's own store, or where the program has let it; elsewhere the port is ours."""
    from importlib.util import find_spec
    if find_spec("torch") is None:
        return None
    import torch.distributed as dist
    if not dist.is_available():
        return None
    if not dist.is_initialized():
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        dist.init_process_group("gloo")
    return dist.new_group(ranks, backend="gloo", use_local_synchronization=True)


def set_launched(world: _native.RankWorld, parallel: ParallelConfig, native: _native.RankGroup) -> None:
    """The groups of the newest LLM, of which this process is rank parallel.rank."""
    own = parallel.coordinates_of(parallel.rank)
    everyone = list(range(parallel.world_size_across_dp))

    def along(*free: str) -> list[int]:
        """The ranks that differ from this one in these coordinates alone."""
        at = [(rank, parallel.coordinates_of(rank)) for rank in everyone]
        return [rank for rank, other in at if all(other[name] == own[name] for name in own if name not in free)]

    _groups["world"] = GroupCoordinator("world", world, everyone, parallel.rank, native)
    for name, free in (("tp", ["tp"]), ("pp", ["pp"]), ("dp", ["dp"]), ("dcp", ["cp"]), ("ep", ["dp", "tp"])):
        _groups[name] = GroupCoordinator(name, world, along(*free), parallel.rank)


def set_alone() -> None:
    """Without a launcher: this process is alone in each group, however many workers its LLM has."""
    for name in ("world", "tp", "pp", "dp", "dcp", "ep"):
        _groups[name] = GroupCoordinator(name, _native.RankWorld(), [0], 0)


def _group(name: str) -> GroupCoordinator:
    if name not in _groups:
        raise RuntimeError(f"the {name} group is not there before an LLM is made")
    return _groups[name]


def get_world_group() -> GroupCoordinator:
    """All ranks of the launcher."""
    return _group("world")


def get_tp_group() -> GroupCoordinator:
    """The workers that share each layer with this one."""
    return _group("tp")


def get_pp_group() -> GroupCoordinator:
    """The workers that hold the replica's other layers."""
    return _group("pp")


def get_dp_group() -> GroupCoordinator:
    """The same worker of every replica."""
    return _group("dp")


def get_dcp_group() -> GroupCoordinator:
    """The workers that share the KV cache of each sequence."""
    return _group("dcp")


def get_ep_group() -> GroupCoordinator:
    """The workers that share the experts of a pipeline stage."""
    return _group("ep")


def get_tensor_model_parallel_world_size() -> int:
    return get_tp_group().world_size


def get_tensor_model_parallel_rank() -> int:
    return get_tp_group().rank_in_group
