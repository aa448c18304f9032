"""One rank of a world that is not there: real Megatron groups over torch's ``fake`` process group, and no data.

Tensors of the model are FakeTensors: they have shapes, types and storages of a size, and nothing is allocated. What
steers the host stays real: token ids, cu_seqlens, image sizes. So every branch that a rank would take is taken, and
every shape is checked by the very modules that a job runs. A scalar that is read off a fake tensor (a loss, a gradient
norm) is 1: finite, and true.

Sources: torch/testing/_internal/distributed/fake_pg.py, torch/_subclasses/fake_tensor.py (torch 2.11).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FakeWork
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nemo_amalia.utils.errors import ConfigError

_SCALAR = torch.ops.aten._local_scalar_dense.default
# Collectives that torch 2.11 gives no shape function: they write into what they are given.
_WITHOUT_SHAPES = {
    torch.ops.c10d.reduce_scatter_tensor_coalesced_.default,
    torch.ops.c10d.allgather_into_tensor_coalesced_.default,
}
LARGEST_REAL = 1 << 24  # elements; integers that steer the host are far below, weights far above


class HostValues(TorchDispatchMode):
    """Over a FakeTensorMode: operations on real tensors alone stay real, and reading a fake scalar gives 1.

    seen: called with every tensor that an operation gave, fake ones alone.
    """

    def __init__(self, seen: Callable[[torch.Tensor], None] | None = None):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        fake = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        if func is _SCALAR and fake:
            return _scalar(args[0])
        if tensors and not fake and all(tensor.numel() < LARGEST_REAL for tensor in tensors):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func in _WITHOUT_SHAPES:
            return FakeWork().boxed()
        result = func(*args, **kwargs)
        if self.seen is not None:
            for leaf in tree_leaves(result):
                if isinstance(leaf, FakeTensor):
                    self.seen(leaf)
        return result


def _scalar(tensor: FakeTensor):
    if tensor.constant is not None:
        return tensor.constant.item()
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.dtype.is_floating_point else 1


@contextlib.contextmanager
def fake_world(rank: int, size: int) -> Iterator[None]:
    """torch.distributed as rank ``rank`` of ``size``, alone: collectives and sends give shapes. Undone at the end.

    Raises ConfigError for a rank that the world does not have, and inside a job.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if not 0 <= rank < size:
        raise ConfigError(f"rank {rank} is not in a world of {size}: choose 0 to {size - 1}")
    if dist.is_initialized():
        raise ConfigError("a dry run is one process of its own: start it outside of torchrun and srun")
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    gather = dist.all_gather_object
    dist.all_gather_object = _echo
    try:
        yield
    finally:
        dist.all_gather_object = gather
        from megatron.core import parallel_state

        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()


def _echo(found: list, mine, group=None) -> None:
    """all_gather_object where every other rank says what this one says (Megatron compares parameter groups so)."""
    found[:] = [mine] * len(found)


@contextlib.contextmanager
def fake_tensors(seen: Callable[[torch.Tensor], None] | None = None) -> Iterator[FakeTensorMode]:
    """Within: tensors that are made are fake. Enter it when the groups exist."""
    plain = torch.nn.Module._apply
    torch.nn.Module._apply = _converted
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, HostValues(seen):
            yield mode
    finally:
        torch.nn.Module._apply = plain


def _converted(module: torch.nn.Module, function, recurse: bool = True) -> torch.nn.Module:
    """Module._apply for fake parameters: torch swaps two tensors' contents, and refuses to where a fake one is known.

    Parameters are replaced, their marks (Megatron's tensor_model_parallel and others) kept.
    """
    for child in module.children() if recurse else ():
        child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                new = torch.nn.Parameter(function(parameter), parameter.requires_grad)
            new.__dict__.update(parameter.__dict__)
            module._parameters[name] = new
    for name, buffer in module._buffers.items():
        module._buffers[name] = buffer if buffer is None else function(buffer)
    return module
