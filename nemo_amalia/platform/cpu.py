"""The CPU platform: Megatron-Core 0.19.2 and Megatron Bridge 0.6.2 train on Gloo, unchanged.

Every name that is replaced has its reason beside it. What is deliberately NOT replaced: torch.empty,
torch.arange and the other factories. Wrapping them breaks ``with torch.device("meta")``, and transformers
then builds rotary tables from garbage without a word (shared/prototypes; kept by tests/unit/platform).

Call :func:`activate` before the first ``import megatron``.
"""

import contextlib
import types

import torch
import torch.distributed as dist
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")
NOMINAL_MEMORY = 1 << 34  # bytes; only Megatron's memory log lines read it
_active = False


def activate() -> None:
    """Route CUDA to CPU and let Megatron import without Transformer Engine and NVRx. Idempotent."""
    global _active
    if _active:
        return
    _active = True
    _replace_device_queries()
    _replace_streams_and_events()
    _replace_random_state()
    _replace_tensor_moves()
    _replace_legacy_constructors()
    _CudaStringsBecomeCpu().__enter__()
    from nemo_amalia.platform import standins

    standins.import_megatron()


def _nothing():
    """A new no-op each time: torch._dynamo refuses one function object under two names."""
    return lambda *args, **kwargs: None


def _replace_device_queries() -> None:
    cuda = torch.cuda
    # Called for their effect on a device that is not there.
    for name in (
        "set_device",
        "synchronize",
        "empty_cache",
        "manual_seed_all",
        "reset_peak_memory_stats",
        "_lazy_init",
    ):
        setattr(cuda, name, _nothing())
    # Read by log lines only.
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        setattr(cuda, name, lambda *args, **kwargs: 0)
    cuda.memory_stats = lambda *args, **kwargs: {}
    cuda.mem_get_info = lambda *args, **kwargs: (NOMINAL_MEMORY, NOMINAL_MEMORY)
    # Nearly every allocation in Megatron-Core asks for this; a torch.device serves all of them.
    cuda.current_device = lambda: CPU
    cuda.device_count = lambda: 1
    # Lightning (through nemo) makes torch ask device_count instead of the driver; conversion must be told no.
    cuda.is_available = lambda: False
    # Compared with (8, 0) and (9, 0) to choose kernels that the CPU layers never reach.
    cuda.get_device_capability = lambda *args, **kwargs: (9, 0)
    cuda.get_device_properties = lambda *args, **kwargs: types.SimpleNamespace(
        major=9, minor=0, name="cpu", total_memory=NOMINAL_MEMORY, multi_processor_count=1
    )
    cuda.nvtx.range_push, cuda.nvtx.range_pop = _nothing(), _nothing()  # profiler marks inside schedules


class _Event:
    """Stands for torch.cuda.Event: on a CPU everything before it has already happened."""

    def __init__(self, *args, **kwargs): ...

    def record(self, *args, **kwargs): ...

    def wait(self, *args, **kwargs): ...

    def synchronize(self): ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other) -> float:
        return 0.0


class _Stream:
    """Stands for torch.cuda.Stream: one queue, in order."""

    def __init__(self, *args, **kwargs):
        self.cuda_stream, self.device = 0, CPU

    def wait_stream(self, *args): ...

    def wait_event(self, *args): ...

    def synchronize(self): ...

    def record_event(self, *args) -> _Event:
        return _Event()

    def query(self) -> bool:
        return True

    def __enter__(self):
        return self

    def __exit__(self, *args) -> bool:
        return False


def _replace_streams_and_events() -> None:
    cuda, stream = torch.cuda, _Stream()
    # The distributed optimizer and the checkpoint writer overlap copies on side streams.
    cuda.Event, cuda.Stream = _Event, _Stream
    cuda.current_stream = lambda *args, **kwargs: stream
    cuda.default_stream = lambda *args, **kwargs: stream
    cuda.stream = lambda _: contextlib.nullcontext()
    cuda.is_current_stream_capturing = lambda: False  # asked before every fork of the RNG tracker
    # Gloo's barrier takes no device_ids.
    plain_barrier = dist.barrier
    dist.barrier = lambda group=None, async_op=False, device_ids=None: plain_barrier(group=group, async_op=async_op)


def _replace_random_state() -> None:
    import torch.cuda.random as cuda_random

    cuda = torch.cuda
    # The default generator directly: torch.manual_seed seeds CUDA too and would call back into here.
    cuda.manual_seed = lambda seed: torch.default_generator.manual_seed(seed)
    cuda.default_generators = [torch.default_generator]
    for module in (cuda, cuda_random):
        module.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
        module.set_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)


def _names_cuda(value) -> bool:
    return isinstance(value, str | torch.device) and str(value).startswith("cuda")


def _replace_tensor_moves() -> None:
    tensor = torch.Tensor
    tensor.cuda = lambda self, *args, **kwargs: self
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self
    tensor.pin_memory = lambda self, *args, **kwargs: self  # pinning asks for the driver
    tensor.record_stream = _nothing()
    plain_to, plain_type = tensor.to, tensor.type

    def to(self, *args, **kwargs):
        args = tuple(CPU if _names_cuda(value) else value for value in args)
        if _names_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        return plain_to(self, *args, **kwargs)

    def type_(self, *args, **kwargs):
        if args or kwargs:
            return plain_type(self, *args, **kwargs)
        # DistributedOptimizer sorts parameters by comparing with "torch.cuda.FloatTensor" and the like.
        name = plain_type(self)
        return name if "cuda" in name else name.replace("torch.", "torch.cuda.", 1)

    tensor.to, tensor.type = to, type_


class _LegacyType(type):
    """torch.cuda.FloatTensor and its kin: called by Megatron's clipping and timers, asked about by Float16Module."""

    def __call__(cls, *args):
        holds_values = bool(args) and isinstance(args[0], list | tuple)
        return torch.tensor(args[0], dtype=cls.dtype) if holds_values else torch.empty(*args, dtype=cls.dtype)

    def __instancecheck__(cls, value) -> bool:
        return isinstance(value, torch.Tensor) and value.dtype == cls.dtype


def _replace_legacy_constructors() -> None:
    kinds = {
        "FloatTensor": torch.float32,
        "HalfTensor": torch.float16,
        "BFloat16Tensor": torch.bfloat16,
        "IntTensor": torch.int32,
        "LongTensor": torch.int64,
        "ByteTensor": torch.uint8,
    }
    for name, dtype in kinds.items():
        setattr(torch.cuda, name, _LegacyType(name, (), {"dtype": dtype}))


class _CudaStringsBecomeCpu(TorchFunctionMode):
    """Catches ``device="cuda"`` and ``pin_memory=True`` wherever a torch function is called with them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if "device" in kwargs and _names_cuda(kwargs["device"]):
            kwargs = dict(kwargs, device=CPU)
        if kwargs.get("pin_memory"):  # pinning asks for the driver (core's rotary embedding under CP does)
            kwargs = dict(kwargs, pin_memory=False)
        return func(*args, **kwargs)
