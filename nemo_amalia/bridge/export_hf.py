"""`amalia export`: a Megatron checkpoint -> a Hugging Face LLaVA-NeXT folder, one shard in memory at a time.

The model is built on the meta device, to know its tensors; each is read from the distributed checkpoint, converted by
Bridge's weight map, and gathered into a shard that is written and forgotten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from nemo_amalia.bridge import assets
from nemo_amalia.bridge.checkpoints import assets_of, latest_iteration
from nemo_amalia.bridge.import_hf import parse_dtype
from nemo_amalia.bridge.supported import check_supported
from nemo_amalia.bridge.tensor_files import SHARD_BYTES, write_shards
from nemo_amalia.utils.errors import CheckpointError
from nemo_amalia.utils.files import atomic_folder, write_json

# Lengths and seeds of training are no property of the model: the import's values stand.
_NOT_COMPARED = ("max_position_embeddings", "initializer_range", "attention_dropout", "dtype", "image_grid_pinpoints")


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    hf_assets: Path | None = None,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write an HF folder that transformers 5 and 4.57 load, with processor and tokenizer; returns ``out``.

    checkpoint: a run's checkpoint folder (its latest iteration is taken) or one iteration. hf_assets: the folder with
    config, tokenizer and processor, if it is neither in the checkpoint nor beside it. dtype: None keeps the model's.
    Runs in one process. Raises CheckpointError for a missing or torn checkpoint, one whose assets belong to another
    model, a connector that LLaVA-NeXT cannot express, and an output folder that cannot be written.
    """
    chosen = parse_dtype(dtype)
    iteration = latest_iteration(checkpoint)
    source = Path(hf_assets) if hf_assets else assets_of(iteration)
    with atomic_folder(Path(out)) as partial:
        provider = _provider(iteration)
        expected = _check_assets(provider, source)
        assets.copy_assets(source, partial)
        write_shards(_tensors(provider, iteration, source, chosen), partial, shard_bytes)
        _finish(partial, expected, chosen)
    return Path(out)


def _provider(iteration: Path):
    from megatron.bridge.training.model_load_save import load_model_config

    from nemo_amalia.bridge import llava_next

    provider, _ = load_model_config(str(iteration))
    if not isinstance(provider, llava_next.AmaliaVLModelProvider):
        raise CheckpointError(
            f"{iteration} holds a {type(provider).__name__}; expected an AmaliaVLModelProvider: it was not written by "
            "`amalia import` or `amalia train`"
        )
    return provider


def _check_assets(provider, source: Path) -> dict:
    """The HF config that the checkpoint's model has. Raises CheckpointError when that of the assets is another's."""
    from nemo_amalia.bridge import config_map
    from nemo_amalia.bridge.llava_next import LlavaNextBridge

    config = assets.load_config(source)
    check_supported(config)
    ours = LlavaNextBridge.megatron_to_hf_config(LlavaNextBridge().provider_bridge(SimpleNamespace(config=config)))
    expected = LlavaNextBridge.megatron_to_hf_config(provider)
    found = [
        line
        for line in config_map.differences(ours, expected)
        if line.split(":")[0].rsplit(".", 1)[-1] not in _NOT_COMPARED
    ]
    if found:
        raise CheckpointError(
            f"{source}/config.json belongs to another model than the checkpoint ({'; '.join(found[:3])}): put the "
            "hf folder of the import that this run started from beside it"
        )
    return expected


def _finish(folder: Path, expected: dict, dtype: torch.dtype | None) -> None:
    """What training may have changed goes into the copied files."""
    assets.set_pinpoints(folder, expected["image_grid_pinpoints"])
    config = assets.read_part(folder / "config.json")
    config["dtype"] = str(dtype).removeprefix("torch.") if dtype else expected["dtype"]
    for part in ("text_config", "vision_config"):
        config[part].pop("dtype", None)
    config["vision_config"]["vision_use_head"] = False
    write_json(folder / "config.json", config, indent=2)
    assets.make_portable(folder)


def _tensors(provider, iteration: Path, source: Path, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its HF name, read from the checkpoint one parameter after the other."""
    from nemo_amalia.bridge.checkpoint_reader import CheckpointReader
    from nemo_amalia.bridge.llava_next import LlavaNextBridge
    from nemo_amalia.bridge.single_process import single_process

    bridge, config = LlavaNextBridge(), assets.load_config(source)
    tied_copy = "" if not provider.share_embeddings_and_output_weights else "language_model.lm_head.weight"
    with single_process(provider):
        with torch.device("meta"):
            model = provider.provide()
        stored, reader = _stored(model, iteration), CheckpointReader(iteration)
        for task in bridge.build_conversion_tasks(config, [model]):
            task = dataclasses.replace(task, param_weight=reader.read(stored.pop(task.param_name)))
            stream = bridge.stream_weights_megatron_to_hf(
                [model], config, cpu=True, show_progress=False, conversion_tasks=[task]
            )
            for name, tensor in stream:
                if name != tied_copy:
                    yield name, tensor.to(dtype) if dtype else tensor


def _stored(model, iteration: Path) -> dict:
    """How each parameter lies in the checkpoint: name -> ShardedTensor (or factory) without data."""
    from megatron.core import dist_checkpointing

    common = dist_checkpointing.load_common_state_dict(str(iteration))
    metadata = dist_checkpointing.load_content_metadata(preloaded_state_dict=common)
    return model.sharded_state_dict(metadata=metadata)
