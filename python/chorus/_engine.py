"""Starting, watching and ending an engine: what LLM and AsyncLLM have in common."""
from __future__ import annotations

import json
import os
import pathlib
import weakref

from chorus import _native
from chorus.config import ParallelConfig
from chorus.tokenizer import Tokenizer

# How soon a Ctrl-C is seen: between two waits Python runs its signal handlers.
WAIT_MS = 20
# Engines end within two seconds when they are told to (fleet/host.cc); then they are killed.
_END_WITHIN_MS = 10_000


def program_path() -> str:
    """The program `chorus` that came with this package, which engines are started from. Raises FileNotFoundError."""
    from importlib import metadata
    package = pathlib.Path(__file__).resolve().parent
    try:
        files = metadata.files("chorus") or []
    except metadata.PackageNotFoundError:
        files = []
    places = [pathlib.Path(file.locate()) for file in files if file.name == "chorus" and file.parent.name == "bin"]
    places.append(package.parent / "bin" / "chorus")  # pip install --target
    for place in places:
        if place.is_file():
            return os.path.realpath(place)
    raise FileNotFoundError(f"the program chorus, which engines are started from, is not at {' or '.join(map(str, places))}: "
                            "install the package chorus again with pip")


def _text_of(value) -> str | None:
    """An option's value as the command line takes it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value)
    return str(value).removeprefix("torch.")


def checked_options(who: str, options: dict) -> list[tuple[str, str | None]]:
    """Names and values for the engine. Raises TypeError for a name that is none."""
    for name in options:
        try:
            _native.check_option_name(name)
        except ValueError as error:
            raise TypeError(f"{who}: {error}") from None
    return [(name, _text_of(value)) for name, value in options.items()]


def _read_log_level() -> None:
    for name in ("VLLM_LOGGING_LEVEL", "CHORUS_LOG_LEVEL"):
        if os.environ.get(name):
            _native.set_log_level(os.environ[name])


def start(who: str, model: str, options: dict, streams: bool, meeting=None):
    """The running engine. Ends it again, and raises, when it cannot start or the program is interrupted."""
    _read_log_level()
    native = _native.Engine(os.fspath(model), checked_options(who, options), dict(os.environ), program_path(), streams, meeting)
    try:
        while not native.wait_until_started(WAIT_MS):
            pass
    except BaseException:
        native.stop(abandon=True)
        raise
    return native


def end(native, abandon: bool = True) -> None:
    """Ends the engine and its processes, and waits for that."""
    native.stop(abandon)
    waited_ms = 0
    while not native.wait_until_ended(WAIT_MS) and waited_ms < _END_WITHIN_MS:
        waited_ms += WAIT_MS


def end_with(owner, native):
    """A function that ends the engine once; it runs when `owner` is collected or the interpreter ends, if not before."""
    return weakref.finalize(owner, end, native)


class _Namespace:
    """Members for programs that reach into an engine as they do into vLLM's."""

    def __init__(self, **members):
        self.__dict__.update(members)


class Model:
    """The weights of this process's rank."""

    def __init__(self, native):
        self._native = native

    def named_parameters(self):
        """Yields (name, array) for each tensor of the checkpoint of which this rank has a part: float32 numpy arrays [rows, columns]
        ([rows] for a vector) of its slice, as the kernels read it. Loads the rank's weights once more, for as long as the iteration
        lasts; writing to an array changes no model. Raises ImportError without numpy."""
        import numpy
        reader = _native.ParameterReader.open(self._native)
        slices: dict[str, list[int]] = {}
        for index in range(len(reader)):
            slices.setdefault(reader.name(index), []).append(index)
        for name, indices in slices.items():
            arrays = [reader.array(index) for index in indices]
            yield name, arrays[0] if len(arrays) == 1 else numpy.concatenate(arrays)


class LLMEngine:
    """What programs reach into: vllm_config.parallel_config, vllm_config.model_config,
    model_executor.driver_worker.worker.model_runner.model."""

    def __init__(self, native):
        config = native.config
        names = [*ParallelConfig._SIZES, "enable_expert_parallel", "data_parallel_backend", "distributed_executor_backend"]
        parallel = ParallelConfig(**{name: config[name] for name in names}, rank=native.world_rank, data_parallel_rank=native.ranks[0])
        model = _Namespace(model=config["model"], max_model_len=native.max_model_len, dtype=config["dtype"], seed=config["seed"])
        self.vllm_config = _Namespace(parallel_config=parallel, model_config=model)
        self.model_config = model
        worker = _Namespace(model_runner=_Namespace(model=Model(native)), rank=native.world_rank)
        self.model_executor = _Namespace(driver_worker=_Namespace(worker=worker, model_runner=worker.model_runner))
        self.tokenizer = Tokenizer(native.tokenizer)
