"""The run's precision as Megatron Bridge's recipe, with our own first and last layers."""

from __future__ import annotations

import torch
from megatron.bridge.training.mixed_precision import MixedPrecisionConfig, get_mixed_precision_config

from nemo_amalia.config.precision import fp8_format, fp8_scaling
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.model.provider import AmaliaVLModelProvider


def mixed_precision(run: RunConfig) -> MixedPrecisionConfig | None:
    """Bridge's recipe of this name, its FP8 as the run has it; None for plain fp32.

    Bridge's own recipes keep weights in FP8 (fp8_param_gather). Then the fp32 master weights are made of the rounded
    ones when a run starts from a checkpoint (``optimizer.reload_model_params``, bridge/training/checkpointing.py), so
    ours does it only where the run asks for it.
    """
    p, scaling = run.precision, fp8_scaling(run.precision)
    if p.recipe == "fp32" and scaling is None:
        return None
    if p.recipe == "fp32":
        recipe = MixedPrecisionConfig(fp32=True, params_dtype=torch.float32, pipeline_dtype=torch.float32)
    else:
        recipe = get_mixed_precision_config(p.recipe)
    if scaling is not None:
        recipe.fp8, recipe.fp8_recipe = fp8_format(p), scaling
        recipe.fp8_param_gather = p.fp8_parameters
        recipe.reuse_grad_buf_for_mxfp8_param_ag = p.fp8_parameters and scaling == "mxfp8"
        recipe.first_last_layers_bf16 = bool(p.first_layers_bf16 or p.last_layers_bf16)
        recipe.num_layers_at_start_in_bf16 = p.first_layers_bf16
        recipe.num_layers_at_end_in_bf16 = p.last_layers_bf16
    return recipe


def set_precision(run: RunConfig, model: AmaliaVLModelProvider) -> None:
    """The model's part of the recipe. Bridge applies it again, with the optimizer's and the gradients'."""
    # A checkpoint brings the FP8 of the run that wrote it, and fp32 has no recipe that would take it away.
    model.fp8, model.fp8_param, model.first_last_layers_bf16 = None, False, False
    dtype = torch.float32 if run.precision.recipe == "fp32" else torch.bfloat16
    model.params_dtype = model.pipeline_dtype = model.autocast_dtype = dtype
    model.bf16, model.fp16 = dtype == torch.bfloat16, False
    recipe = mixed_precision(run)
    if recipe is not None:
        recipe.finalize()
        recipe.setup(model)
