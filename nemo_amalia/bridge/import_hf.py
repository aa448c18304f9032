"""`amalia import`: a Hugging Face folder (or a SigLIP and a Llama folder) -> a Megatron distributed checkpoint."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from nemo_amalia.bridge import assets
from nemo_amalia.bridge.checkpoints import ASSETS
from nemo_amalia.bridge.supported import check_supported
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import CheckpointError
from nemo_amalia.utils.files import atomic_folder

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def import_checkpoint(
    out: Path,
    *,
    hf: Path | None = None,
    vision: Path | None = None,
    llm: Path | None = None,
    max_tiles: int = 12,
    connector_seed: int = RunConfig.seed,
    dtype: str | None = None,
) -> Path:
    """Write a Megatron checkpoint (torch_dist, iteration 0) with its ``hf`` assets to ``out``; returns ``out``.

    hf: a LLaVA-NeXT folder; or vision and llm: a SigLIP and a Llama folder, joined by a connector drawn from
    ``connector_seed``, with the grids of at most ``max_tiles`` tiles. dtype: fp32, bf16 or fp16; None keeps the
    folder's.
    Runs in one process, without torchrun. Raises CheckpointError for folders that do not fit, before it writes.
    """
    if (hf is None) != (vision is not None and llm is not None) or (hf is not None and (vision or llm)):
        raise CheckpointError(
            "import takes either hf, or vision and llm together: one LLaVA-NeXT folder, or its two parts"
        )
    chosen = parse_dtype(dtype)
    with atomic_folder(Path(out)) as partial:
        if hf is not None:
            _write(Path(hf), partial, chosen)
        else:
            from nemo_amalia.bridge.combine_hf import combine

            with tempfile.TemporaryDirectory(prefix=".combined-", dir=partial.parent) as folder:
                combine(vision, llm, Path(folder), max_tiles=max_tiles, connector_seed=connector_seed, dtype=chosen)
                _write(Path(folder), partial, chosen)
    return Path(out)


def parse_dtype(name: str | None) -> torch.dtype | None:
    """Raises CheckpointError for a name that is not in DTYPES."""
    if name is not None and name not in DTYPES:
        raise CheckpointError(f"dtype is {name!r}; this model has {', '.join(DTYPES)}")
    return DTYPES[name] if name else None


def _write(hf: Path, out: Path, dtype: torch.dtype | None) -> None:
    config = assets.load_config(hf)
    check_supported(config)
    assets.check_image_token(hf, config)
    _save(hf, out, dtype)
    assets.copy_assets(hf, out / ASSETS)
    assets.make_portable(out / ASSETS)


def _save(hf: Path, out: Path, dtype: torch.dtype | None) -> None:
    from megatron.bridge import AutoBridge
    from megatron.bridge.training.model_load_save import save_megatron_model

    from nemo_amalia.bridge import llava_next
    from nemo_amalia.bridge.single_process import single_process

    bridge = AutoBridge.from_hf_pretrained(str(hf), device="cpu")
    llava_next.check_tensors(bridge.hf_pretrained)
    provider = bridge.to_megatron_provider(load_weights=True)
    # Bridge's own key for the folder's name; the folder may be a temporary one.
    provider.hf_model_id = None
    if dtype is not None:
        provider.params_dtype = dtype
        provider.bf16, provider.fp16 = dtype == torch.bfloat16, dtype == torch.float16
    with single_process(provider) as before:
        model = provider.provide_distributed_model(wrap_with_ddp=False, use_cpu_initialization=True)
        # What is saved is a model's config and not how it came here: a run that builds on it decides for itself.
        for name, value in {**before, "perform_initialization": True}.items():
            setattr(provider, name, value)
        save_megatron_model(model, out, ckpt_format="torch_dist")
