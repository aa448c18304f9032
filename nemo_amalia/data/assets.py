"""What a Hugging Face LLaVA-NeXT folder says of text and images, for commands that read data without a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_amalia.data.chat import ChatFormat
from nemo_amalia.data.image_geometry import ImageGeometry


@dataclass(frozen=True)
class Assets:
    """config: transformers' LlavaNextConfig; chat: tokenizer and its template; geometry: tiles and tokens."""

    folder: Path
    config: Any
    chat: ChatFormat
    geometry: ImageGeometry


def read_assets(folder: str | Path) -> Assets:
    """Raises ValueError when a part of the folder is missing or cannot be used."""
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"--assets {folder} has no config.json: give a LLaVA-NeXT folder, or a checkpoint's hf folder")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"--assets {folder} cannot be loaded ({str(error).splitlines()[0]}): mend the folder"
        ) from error
    if not hasattr(config, "image_grid_pinpoints") or not hasattr(config, "vision_config"):
        raise ValueError(
            f"--assets {folder} holds a {config.model_type}: expected llava_next, with its grids and tower"
        )
    vision, pinpoints = config.vision_config, tuple((int(h), int(w)) for h, w in config.image_grid_pinpoints)
    return Assets(folder, config, ChatFormat(tokenizer), ImageGeometry(vision.image_size, vision.patch_size, pinpoints))
