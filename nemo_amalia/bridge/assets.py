"""What an HF folder has beside its weights: config, tokenizer, processor, chat template, generation config.

Written so that transformers 5 and 4.57 both load it; what 4.57 needs was found by loading.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nemo_amalia.utils.errors import CheckpointError, DataError
from nemo_amalia.utils.files import read_json, write_json
from nemo_amalia.utils.text import first_line

IMAGE_TOKEN = "<image>"
# Text files that make up a tokenizer, a processor or a config. Weights and code are not copied.
_PATTERNS = ("*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
_NOT = ("*.index.json",)
# transformers 5's name for a tokenizer that is only its tokenizer.json; 4.57 knows the older one.
_TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}


def read_part(path: Path) -> dict[str, Any]:
    """A JSON file of a Hugging Face folder. Raises CheckpointError when it is missing or corrupt."""
    try:
        return read_json(path)
    except DataError as error:
        raise CheckpointError(f"{error}; give a complete Hugging Face folder") from error


def copy_assets(source: Path, target: Path) -> None:
    """Copy everything but weights and code from one HF folder to another."""
    target.mkdir(parents=True, exist_ok=True)
    for pattern in _PATTERNS:
        for path in sorted(Path(source).glob(pattern)):
            if not any(path.match(other) for other in _NOT):
                shutil.copyfile(path, target / path.name)


def load_config(folder: Path):
    """An HF folder's config. Raises CheckpointError when there is none, or transformers does not know its model."""
    content = read_part(Path(folder) / "config.json")
    from transformers import AutoConfig  # takes seconds, and there is a config now

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"{folder} holds {content.get('architectures') or content.get('model_type')!r}, which transformers cannot "
            "read: give a Hugging Face folder of a supported model"
        ) from error


def load_tokenizer(folder: Path):
    """An HF folder's tokenizer. Raises CheckpointError when it has none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        reason = first_line(error)  # transformers goes on for a paragraph
        raise CheckpointError(
            f"{folder} has no tokenizer that transformers can load ({reason}): add tokenizer.json and "
            "tokenizer_config.json"
        ) from error


def check_image_token(folder: Path, config: Any) -> None:
    """Raises CheckpointError when ``<image>`` is not one token that config, tokenizer and vocabulary agree on."""
    tokenizer = load_tokenizer(folder)
    found = tokenizer.get_vocab().get(IMAGE_TOKEN)
    if found is None:
        raise CheckpointError(
            f"the vocabulary of {folder} ({len(tokenizer)} tokens) lacks {IMAGE_TOKEN}: a LLaVA-NeXT folder must have "
            "it; add it to the tokenizer and resize the model's embeddings, or import from --vision and --llm"
        )
    if found != config.image_token_index:
        raise CheckpointError(
            f"image_token_index is {config.image_token_index} in {folder}/config.json and {IMAGE_TOKEN} is token "
            f"{found} of its tokenizer: set image_token_index to the tokenizer's"
        )
    rows = config.text_config.vocab_size
    if found >= rows:
        raise CheckpointError(
            f"{IMAGE_TOKEN} is token {found} and the embeddings of {folder} have {rows} rows: resize the embeddings"
        )


def make_portable(folder: Path) -> None:
    """Rewrite a folder's JSON files so that transformers 4.57 reads them as transformers 5 does."""
    config = read_part(folder / "config.json")
    _portable_rope(config["text_config"])
    write_json(folder / "config.json", config, indent=2)
    tokenizer_file = folder / "tokenizer_config.json"
    tokenizer = read_part(tokenizer_file)
    name = tokenizer.get("tokenizer_class")
    tokenizer["tokenizer_class"] = _TOKENIZER_CLASSES.get(name, name)
    tokenizer["extra_special_tokens"] = {"image_token": IMAGE_TOKEN}
    # 4.57's PreTrainedTokenizerFast would add token_type_ids, which generate() refuses.
    tokenizer.setdefault("model_input_names", ["input_ids", "attention_mask"])
    write_json(tokenizer_file, tokenizer, indent=2)
    _portable_images(folder)


def _portable_images(folder: Path) -> None:
    """Name the torchvision image processor. 5 has one under either name; the plain name is Pillow's in 4.57, whose
    pixels differ by up to 2 of 255 from those that the model was trained on (data/images/decode.py)."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if not (folder / name).exists():
            continue
        content = read_part(folder / name)
        part = content.get("image_processor", content)
        if "image_processor_type" in part:
            part["image_processor_type"] = "LlavaNextImageProcessorFast"
            write_json(folder / name, content, indent=2)


def _portable_rope(text: dict[str, Any]) -> None:
    """4.57 reads ``rope_theta`` and ``rope_scaling``; 5 reads ``rope_parameters``."""
    rope = dict(text.get("rope_parameters") or {})
    theta = rope.pop("rope_theta", None)
    if theta is not None:
        text["rope_theta"] = theta
    if rope.get("rope_type", "default") != "default":
        text["rope_scaling"] = rope


def set_pinpoints(folder: Path, pinpoints: list[list[int]]) -> None:
    """Write the grids a model was trained with into its config and its processor, where both must agree."""
    for name in ("config.json", "processor_config.json", "preprocessor_config.json"):
        path = folder / name
        if not path.exists():
            continue
        content = read_part(path)
        for part in (content, content.get("image_processor")):
            if isinstance(part, dict) and "image_grid_pinpoints" in part:
                part["image_grid_pinpoints"] = pinpoints
        write_json(path, content, indent=2)
