"""An initial LLaVA-NeXT folder out of a SigLIP folder and a Llama folder: how stage 1 starts (paper, section 3).

Tower and decoder are copied tensor by tensor; connector and image_newline are drawn as transformers draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_amalia.bridge import assets, vocabulary, weight_map
from nemo_amalia.bridge.supported import ARCHITECTURE, check_supported
from nemo_amalia.bridge.tensor_files import SHARD_BYTES, TensorFolder, write_shards
from nemo_amalia.data.images.geometry import grids_up_to
from nemo_amalia.utils.errors import CheckpointError

SIGLIP_TYPES = ("siglip", "siglip_vision_model")
_TOWER_PREFIXES = ("vision_model.", "", "vision_tower.vision_model.")  # published and 4.x; 5.x; out of a LLaVA


@dataclass(frozen=True)
class Parts:
    """The two folders, opened. tower_prefix: what stands before ``embeddings.`` in the names of the tower."""

    vision_config: Any
    text_config: Any
    vision: TensorFolder
    llm: TensorFolder
    tower_prefix: str


def open_parts(vision: Path, llm: Path) -> Parts:
    """Raises CheckpointError when the folders are not a SigLIP (not NaFlex) and a Llama that fit this model."""
    vision_config, text_config = assets.load_config(vision), assets.load_config(llm)
    if vision_config.model_type not in SIGLIP_TYPES:
        raise CheckpointError(
            f"{vision} holds a {vision_config.model_type!r}; expected a fixed-resolution SigLIP "
            f"({' or '.join(SIGLIP_TYPES)}), e.g. siglip2-so400m-patch16-384"
        )
    if text_config.model_type != "llama":
        raise CheckpointError(f"{llm} holds a {text_config.model_type!r}; expected a LlamaForCausalLM")
    vision_config = getattr(vision_config, "vision_config", vision_config)
    vision_config.vision_use_head = False  # LLaVA-NeXT takes the patches, not the pooled head
    tower, decoder = TensorFolder(vision), TensorFolder(llm)
    prefixes = [p for p in _TOWER_PREFIXES if p + "embeddings.patch_embedding.weight" in tower]
    if not prefixes:
        raise CheckpointError(f"{vision} has no SigLIP vision tensors: none ends in embeddings.patch_embedding.weight")
    return Parts(vision_config, text_config, tower, decoder, prefixes[0])


def combine(
    vision: Path,
    llm: Path,
    out: Path,
    *,
    max_tiles: int = 12,
    connector_seed: int,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a LlavaNextForConditionalGeneration folder to ``out`` (which exists) and return it.

    ``<image>`` is added to the tokenizer if it is not there; the embeddings grow if they have no spare row for it.
    dtype: of all tensors; None takes the decoder's. Raises CheckpointError when the parts do not fit (see open_parts)
    or the decoder's tokenizer has no usable chat template.
    """
    parts, out = open_parts(Path(vision), Path(llm)), Path(out)
    tokenizer = assets.load_tokenizer(llm)
    place = vocabulary.place_image_token(tokenizer, parts.text_config.vocab_size)
    vocabulary.ensure_chat_template(tokenizer, str(llm))
    dtype = dtype or _dtype_of(parts.text_config)
    config = _config(parts, place, max_tiles, dtype)
    check_supported(config)
    tied = bool(config.tie_word_embeddings)
    expected = weight_map.hf_keys(
        weight_map.PORTABLE, config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers, tied
    )
    _check_sources(parts, expected, vision, llm)
    tensors = _tensors(parts, config, place, expected, connector_seed)
    write_shards(((name, tensor.to(dtype)) for name, tensor in tensors), out, shard_bytes)
    config.save_pretrained(out)
    _processor(tokenizer, config, Path(vision)).save_pretrained(out)
    _generation_config(tokenizer, Path(llm)).save_pretrained(out)
    assets.make_portable(out)
    return out


def _dtype_of(config: Any) -> torch.dtype:
    return getattr(config, "dtype", None) or torch.float32


def _config(parts: Parts, place: vocabulary.Place, max_tiles: int, dtype: torch.dtype):
    from transformers import LlavaNextConfig

    text, vision = parts.text_config, parts.vision_config
    text.vocab_size = place.rows
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=place.token_id,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=[list(canvas) for canvas in grids_up_to(max_tiles, vision.image_size)],
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        tie_word_embeddings=bool(text.tie_word_embeddings),
        architectures=[ARCHITECTURE],
        dtype=dtype,
    )


def _source(parts: Parts, name: str) -> tuple[TensorFolder, str] | None:
    """Where a tensor of the LLaVA-NeXT comes from; None for connector and newline."""
    form = weight_map.PORTABLE
    if name.startswith(form.tower):
        return parts.vision, parts.tower_prefix + name.removeprefix(form.tower)
    if name == form.output:
        return parts.llm, "lm_head.weight"
    if name.startswith(form.decoder):
        return parts.llm, "model." + name.removeprefix(form.decoder)
    return None


def _check_sources(parts: Parts, expected: list[str], vision: Path, llm: Path) -> None:
    wanted = [source for name in expected if (source := _source(parts, name))]
    for folder, files in ((vision, parts.vision), (llm, parts.llm)):
        missing = [name for where, name in wanted if where is files and name not in files]
        if missing:
            raise CheckpointError(
                f"{folder} lacks {len(missing)} tensors that its config.json promises, e.g. {missing[0]}: "
                "the folder is incomplete; copy it again"
            )


def _tensors(
    parts: Parts, config: Any, place: vocabulary.Place, expected: list[str], connector_seed: int
) -> Iterator[tuple[str, Tensor]]:
    fresh = _fresh(config, connector_seed)
    grown = (weight_map.PORTABLE.output, weight_map.PORTABLE.decoder + "embed_tokens.weight")
    for name in expected:
        source = _source(parts, name)
        tensor = fresh[name] if source is None else source[0][source[1]]
        yield name, vocabulary.grow(tensor, place) if name in grown else tensor


def _fresh(config: Any, connector_seed: int) -> dict[str, Tensor]:
    """Connector and newline: normal with the decoder's initializer_range, biases 0, newline 1/sqrt(hidden).

    transformers' rule (PreTrainedModel._init_weights, LlavaNextPreTrainedModel._init_weights), from our own seed.
    """
    generator = torch.Generator().manual_seed(connector_seed)
    hidden, vision = config.text_config.hidden_size, config.vision_config.hidden_size
    std, prefix = config.text_config.initializer_range, weight_map.PORTABLE.connector

    def normal(std: float, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    return {
        prefix + "linear_1.weight": normal(std, hidden, vision),
        prefix + "linear_1.bias": torch.zeros(hidden),
        prefix + "linear_2.weight": normal(std, hidden, hidden),
        prefix + "linear_2.bias": torch.zeros(hidden),
        weight_map.PORTABLE.newline: normal(hidden**-0.5, hidden),
    }


def _processor(tokenizer: Any, config: Any, vision: Path):
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    path = vision / "preprocessor_config.json"
    siglip = assets.read_part(path) if path.exists() else {}
    siglip = siglip.get("image_processor", siglip)
    tile = config.vision_config.image_size
    images = LlavaNextImageProcessor(
        size={"shortest_edge": tile},
        crop_size={"height": tile, "width": tile},
        image_grid_pinpoints=config.image_grid_pinpoints,
        image_mean=siglip.get("image_mean", [0.5] * 3),
        image_std=siglip.get("image_std", [0.5] * 3),
        resample=3,  # bicubic, as data/images/decode.py resizes
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,  # SigLIP has no class token
        chat_template=tokenizer.chat_template,
        image_token=assets.IMAGE_TOKEN,
    )


def _generation_config(tokenizer: Any, llm: Path):
    """The decoder's, ending at the tokenizer's end of turn."""
    from transformers import GenerationConfig

    there = (llm / "generation_config.json").exists()
    config = GenerationConfig.from_pretrained(llm) if there else GenerationConfig()
    config.eos_token_id = tokenizer.eos_token_id
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if config.bos_token_id is None:
        config.bos_token_id = tokenizer.bos_token_id
    return config
