"""What has to be mended before Megatron trains on a GPU: one thing."""

from __future__ import annotations

from pathlib import Path


def keep_compiled_helpers() -> bool:
    """Let Megatron-Core's compiled dataset helpers be where it cannot compile them; returns whether they are kept.

    Bridge's initialize runs ``make`` in megatron/core/datasets on the first rank of every node and ends the process
    where that fails. The wheel brings the compiled module and no Makefile; a source tree, as containers have it, brings
    the Makefile. Call it before the first import of megatron.bridge.
    """
    from megatron.core.datasets import utils

    folder = Path(utils.__file__).parent
    if (folder / "Makefile").is_file() or not list(folder.glob("helpers_cpp*.so")):
        return False
    utils.compile_helpers = lambda: None
    return True
