"""How many bytes fake tensors hold, now and at most: storages are counted when they appear, and taken off when freed.

torch's own MemTracker says more (by module, by kind) and takes ten times as long
(torch/distributed/_tools/mem_tracker.py).
"""

from __future__ import annotations

import weakref

import torch

GRAIN = 512  # bytes; the CUDA caching allocator rounds each allocation up to it


class LiveBytes:
    """Give ``see`` to fake_tensors(). now, peak: bytes."""

    def __init__(self) -> None:
        self.now, self.peak, self.operations = 0, 0, 0
        self._held: dict[int, int] = {}

    def see(self, tensor: torch.Tensor) -> None:
        """Count the storage of ``tensor``, once."""
        self.operations += 1
        storage = tensor.untyped_storage()
        key = id(storage)  # torch gives the same object for as long as any tensor holds the bytes
        if key in self._held:
            return
        size = -(-storage.nbytes() // GRAIN) * GRAIN
        self._held[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key).atexit = False

    def _freed(self, key: int) -> None:
        self.now -= self._held.pop(key, 0)

    def restart_peak(self) -> int:
        """The peak is from now on; returns the bytes that are held."""
        self.peak = self.now
        return self.now
