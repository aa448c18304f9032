"""A tiny Megatron checkpoint, for `amalia train` on data: launch(write_checkpoint, 1, {"folder": ...})."""

from pathlib import Path


def write_checkpoint(folder: str) -> str:
    """Import a tiny LLaVA-NeXT, written to `folder`/source, as `folder`/checkpoint; return that path."""
    import tiny_hf

    from nemo_amalia.bridge.import_hf import import_checkpoint

    here = Path(folder)
    import_checkpoint(hf=tiny_hf.llava_next(here / "source"), vision=None, llm=None, out=here / "checkpoint")
    return str(here / "checkpoint")
