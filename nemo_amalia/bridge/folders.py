"""Check a Hugging Face folder by its names, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from nemo_amalia.utils.errors import CheckpointError


def check_hf_folder(folder: Path, option: str, holds: str) -> None:
    """Raise CheckpointError where ``folder`` cannot be an HF model, by its names, before anything is imported.

    option: the word of the command line that named it; holds: what it should hold.
    """
    folder = Path(folder)
    if not folder.is_dir():
        seen = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(
            f"{option} {folder} {seen}: expected a folder on this machine that holds {holds}; check the path, or "
            "download the model first"
        )
    wanted = {"config.json": (folder / "config.json").is_file(), "*.safetensors": any(folder.glob("*.safetensors"))}
    missing = [name for name, there in wanted.items() if not there]
    if missing:
        names = sorted(path.name for path in folder.iterdir())
        seen = ", ".join(names[:4]) + (f" and {len(names) - 4:,} more" if len(names) > 4 else "") or "nothing"
        raise CheckpointError(
            f"{option} {folder} holds {seen}, and no {' and no '.join(missing)}: expected {holds} as transformers' "
            "save_pretrained writes it; name that folder, or copy what is missing"
        )
