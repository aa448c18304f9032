"""What a Hugging Face LLaVA-NeXT folder says of text and images, for commands that read data without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.utils.errors import DataError
from nemo_amalia.utils.files import read_json
from nemo_amalia.utils.text import first_line


@dataclass(frozen=True)
class Assets:
    """config: transformers' LlavaNextConfig; chat: tokenizer and its template; geometry: tiles and tokens."""

    folder: Path
    config: Any
    chat: ChatFormat
    geometry: ImageGeometry


def read_assets(folder: str | Path) -> Assets:
    """Raises DataError when a part of the folder is missing or cannot be used."""
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise DataError(f"--assets {folder} has no config.json: give a LLaVA-NeXT folder, or a checkpoint's hf folder")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise DataError(f"--assets {folder} cannot be loaded ({first_line(error)}): mend the folder") from error
    if not hasattr(config, "image_grid_pinpoints") or not hasattr(config, "vision_config"):
        raise DataError(f"--assets {folder} holds a {config.model_type}: expected llava_next, with its grids and tower")
    vision, pinpoints = config.vision_config, tuple((int(h), int(w)) for h, w in config.image_grid_pinpoints)
    return Assets(folder, config, ChatFormat(tokenizer), ImageGeometry(vision.image_size, vision.patch_size, pinpoints))


@dataclass(frozen=True)
class ModelFormat:
    """What the model reads: chat template, image geometry, and pixels normalised per channel (mean, std of 0..1)."""

    chat: ChatFormat
    geometry: ImageGeometry
    image_mean: Sequence[float]
    image_std: Sequence[float]

    @classmethod
    def of(cls, folder: str | Path, geometry: ImageGeometry, chat: ChatFormat | None = None) -> ModelFormat:
        """Read tokenizer and image statistics of a Hugging Face folder; the geometry is the model's own."""
        from transformers import AutoTokenizer

        chat = chat or ChatFormat(AutoTokenizer.from_pretrained(folder))
        return cls(chat, geometry, *image_statistics(folder))


def image_statistics(assets: str | Path) -> tuple[list[float], list[float]]:
    """(mean, std) per channel from preprocessor_config.json. Raises DataError where it is missing."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = Path(assets) / name
        if file.is_file():
            values = read_json(file)
            values = values.get("image_processor", values)
            if "image_mean" in values:
                return values["image_mean"], values["image_std"]
    raise DataError(
        f"{assets} has no preprocessor_config.json with image_mean and image_std: import the model again with "
        "`amalia import`, which writes it"
    )
