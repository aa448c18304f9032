"""Large arrays from memory that the process already has.

glibc gives every array above 128 kB (up to 32 MB, as it learns) pages fresh from the kernel, and returns them when it
is dropped; a page of 2 megapixels in RGB then costs about as much in page faults as in drawing.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 32 << 20  # bytes: the most that glibc takes for it
KEPT = 256 << 20  # bytes of free memory that a process keeps for the next arrays


def keep_memory() -> bool:
    """Tells malloc so, for the whole process; False where the C library has no mallopt."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, LARGEST) and mallopt(_M_TRIM_THRESHOLD, KEPT))
