"""The only module that touches private attributes of Energon and torch, written for the releases of WRITTEN_FOR.

Both keep to themselves what a run needs when a worker dies or hangs: which processes there are, which of them is next,
and how they are ended. `check_installed` looks for every name below before a stream uses any of them.
tests/unit/test_private_names.py keeps this the only such module.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable
from functools import cache
from types import FunctionType
from typing import Any

from nemo_amalia.utils.errors import EnvironmentProblem
from nemo_amalia.utils.releases import installed_version, minor_release

log = logging.getLogger(__name__)

#: package -> the minor release whose source was read. Another one of Energon is refused, since `reconsider` changes
#: what a checkpoint holds; another one of torch is only warned of, for what is touched there ends and names workers.
WRITTEN_FOR = {"torch": "2.11", "megatron-energon": "7.4"}
REFUSED_OTHERWISE = ("megatron-energon",)

#: package -> module -> class (or "" for the module itself) -> the names that this file touches
TOUCHED: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "torch": {
        "torch": {"UntypedStorage": ("_new_shared",)},
        "torch.utils.data.dataloader": {
            "DataLoader": ("_iterator",),
            "_MultiProcessingDataLoaderIter": (
                "_workers", "_shutdown", "_shutdown_workers", "_task_info", "_rcvd_idx", "_worker_pids_set",
            ),
        },
        "torch.utils.data._utils.signal_handling": {"": ("_remove_worker_pids",)},
    },
    "megatron-energon": {
        "megatron.energon.savable_loader": {
            "SavableDataLoader": ("_epoch_iterator", "result_queues"),
            "SavableDatasetWrapper": ("_worker_offset",),
        },
        "megatron.energon.wrappers.packing_dataset": {"PackingDataset": ("_reading_buffer",)},
    },
}  # fmt: skip


@cache
def check_installed(package: str) -> None:
    """Check once that an installed package has every name of TOUCHED.

    Args:
        package: a key of WRITTEN_FOR.

    Raises:
        EnvironmentProblem: a name is missing, or the package is another minor release of REFUSED_OTHERWISE.
    """
    version, expected = installed_version(package) or "of unknown version", WRITTEN_FOR[package]
    remedy = (
        f"the data loader was written for {package} {expected}; install the version that pyproject.toml pins "
        "(`amalia doctor` says which command), or adapt nemo_amalia/data/loading/energon_internals.py"
    )
    missing = [
        ".".join(filter(None, (module, kind, name)))
        for module, kinds in TOUCHED[package].items()
        for kind, names in kinds.items()
        for name in names
        if not _has(module, kind, name)
    ]
    if missing:
        raise EnvironmentProblem(f"{package} {version} has no {', '.join(missing)}: {remedy}")
    if minor_release(version) == expected:
        return
    if package in REFUSED_OTHERWISE:
        raise EnvironmentProblem(f"{package} {version} is another release than {expected}: {remedy}")
    log.warning("%s %s is another release than %s, for which the data loader was written", package, version, expected)


def _has(module: str, kind: str, name: str) -> bool:
    """Whether a module, or a class in it, has a name: as an attribute, an annotation, or in the code of its methods."""
    try:
        owner = importlib.import_module(module)
    except ImportError:
        return False
    if not kind:
        return hasattr(owner, name)
    owner = getattr(owner, kind, None)
    if owner is None:
        return False
    methods = [value for value in vars(owner).values() if isinstance(value, FunctionType)]
    return (
        hasattr(owner, name)
        or name in getattr(owner, "__annotations__", {})
        or any(name in method.__code__.co_names for method in methods)
    )


def worker_iterator(loader: Any) -> Any | None:
    """Return torch's iterator with the worker processes of a DataLoader whose workers persist, as Energon's do.

    None before the first batch, after `end_workers`, and without workers. (torch/utils/data/dataloader.py: DataLoader
    keeps it as `_iterator`; Energon's own iterator hides it behind a generator.)
    """
    return loader._iterator


def has_workers(iterator: Any) -> bool:
    """Whether an iterator is torch's with worker processes, and these have not been ended.

    (torch/utils/data/dataloader.py: `_MultiProcessingDataLoaderIter._shutdown`, set by `_shutdown_workers`.)
    """
    return hasattr(iterator, "_workers") and not iterator._shutdown


def processes(iterator: Any) -> list[Any]:
    """Return the worker processes, in the order of their numbers (dataloader.py: `_workers`); [] without workers."""
    return list(getattr(iterator, "_workers", ()))


def next_worker(iterator: Any) -> int:
    """Return the number of the worker whose batch is next.

    (dataloader.py: `_task_info` has the worker of each batch that was asked for, `_rcvd_idx` the next batch.)
    """
    return iterator._task_info[iterator._rcvd_idx][0]


def stop_watching(iterator: Any) -> None:
    """Make torch ignore how these workers end from now on.

    It raises at the death of a worker wherever this process is: not for one that we end ourselves, nor a second time
    for one that is named already. (dataloader.py registers their ids, with the mark `_worker_pids_set`;
    _utils/signal_handling.py: `_remove_worker_pids`.)
    """
    from torch.utils.data._utils.signal_handling import _remove_worker_pids

    if iterator._worker_pids_set:
        _remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def shut_down(iterator: Any) -> None:
    """End the worker processes of an iterator; nothing without workers (dataloader.py: `_shutdown_workers`)."""
    if has_workers(iterator):
        iterator._shutdown_workers()


def end_workers(loader: Any) -> None:
    """End the workers of Energon's loader, and let go of its iterators.

    (energon/savable_loader.py: a generator in `_epoch_iterator` keeps the workers alive; there is no close.)
    """
    loader._epoch_iterator = None
    shut_down(loader._iterator)
    loader._iterator = None


def wrap_answers(loader: Any, wrap: Callable[[Any, int], Any]) -> None:
    """Replace the queue that each worker of Energon's loader answers through by wrap(queue, number).

    (energon/savable_loader.py: `get_worker_state` waits on `result_queues` without end. Workers hold the queues
    themselves.)
    """
    loader.result_queues = [wrap(answers, number) for number, answers in enumerate(loader.result_queues)]


def worker_of_answers(loader: Any, number: int) -> int:
    """Return which worker process answers through Energon's queue of that number.

    Energon numbers workers from the one that a restored position began with (energon/savable_loader.py:
    `SavableDatasetWrapper._worker_offset`), torch from 0.
    """
    return (number - loader.dataset._worker_offset) % len(processes(worker_iterator(loader)))


def reconsider(packing: Any, samples: Iterable[Any]) -> None:
    """Give samples back to a PackingDataset, which packs them again with the ones that it reads next.

    (energon/wrappers/packing_dataset.py: `_reading_buffer`, the part of its state that a checkpoint has.)
    """
    packing._reading_buffer.extend(samples)


def shared_storage(nbytes: int) -> Any:
    """Return a torch storage in shared memory, of which a worker hands over the name instead of the bytes.

    (torch/storage.py: `UntypedStorage._new_shared`, as torch's default_collate uses it.)
    """
    import torch

    return torch.UntypedStorage._new_shared(nbytes)
