"""The SigLIP tower: patches, positions, and Megatron's TransformerBlock without a final norm.

Features are those of transformers' LLaVA-NeXT with ``vision_feature_layer=-1`` and strategy ``full``: the output of
the last block before ``post_layernorm``. The tower is never split: see tile_parallel.py.

Legend: T tiles, C channels, P patches of a tile, v width of the tower.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import TransformerBlock
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from nemo_amalia.model.connectors import ACTIVATIONS
from nemo_amalia.model.layer_specs import vision_layer_spec
from nemo_amalia.model.tile_parallel import initialise_alike, mark_replicated
from nemo_amalia.utils.errors import ConfigError

# Taken over from the decoder's config: precision, initialisation and kernels, nothing about shape or layout.
_INHERITED = (
    "params_dtype",
    "bf16",
    "fp16",
    "init_method_std",
    "perform_initialization",
    "use_cpu_initialization",
    "gradient_accumulation_fusion",
    "bias_dropout_fusion",
    "persist_layer_norm",
    "attention_backend",
    "attention_softmax_in_fp32",
    "deterministic_mode",
    "timers",
)


@dataclass
class VisionConfig:
    """Shape of a SigLIP vision model, in transformers' SiglipVisionConfig's terms. Defaults: so400m-patch16-384."""

    hidden_size: int = 1152
    num_layers: int = 27
    num_attention_heads: int = 16
    ffn_hidden_size: int = 4304
    image_size: int = 384
    patch_size: int = 16
    layernorm_epsilon: float = 1e-6
    activation: str = "gelu_pytorch_tanh"
    num_channels: int = 3
    feature_layer: int = -1

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size


def check_vision(vision: VisionConfig) -> None:
    """Raises ConfigError for a tower that this module cannot build."""
    if vision.feature_layer != -1:
        raise ConfigError(f"feature_layer is {vision.feature_layer}; only -1, the last block, is built")
    if vision.activation not in ACTIVATIONS:
        raise ConfigError(f"vision activation is {vision.activation!r}; known ones: {', '.join(sorted(ACTIVATIONS))}")
    if vision.hidden_size % vision.num_attention_heads:
        raise ConfigError(
            f"the tower's width {vision.hidden_size} does not divide into {vision.num_attention_heads} heads"
        )
    if vision.patch_size < 1 or vision.image_size < vision.patch_size:
        raise ConfigError(f"image_size is {vision.image_size} and patch_size is {vision.patch_size}: no patch fits")


def tower_config(vision: VisionConfig, decoder: TransformerConfig, tower_recompute: bool) -> TransformerConfig:
    """The TransformerConfig of the tower: its own shape, the decoder's precision, one rank wide."""
    recomputing = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    return TransformerConfig(
        num_layers=vision.num_layers,
        hidden_size=vision.hidden_size,
        num_attention_heads=vision.num_attention_heads,
        ffn_hidden_size=vision.ffn_hidden_size,
        normalization="LayerNorm",
        layernorm_epsilon=vision.layernorm_epsilon,
        activation_func=ACTIVATIONS[vision.activation],
        gated_linear_unit=False,
        add_bias_linear=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=1,
        sequence_parallel=False,
        context_parallel_size=1,
        pipeline_model_parallel_size=1,
        # Megatron's fused bias-GELU is only right for one of the activations; the unfused one is as transformers'.
        bias_activation_fusion=False,
        **{name: getattr(decoder, name) for name in _INHERITED},
        **(recomputing if tower_recompute else {}),
    )


def alone(groups: ProcessGroupCollection) -> ProcessGroupCollection:
    """Groups for a module that is not split: this rank by itself for tensor, context and pipeline parallelism.

    The expert-parallel group of a dense model is exactly that. Taking it spares a ``new_group``, which every rank of
    the world would have to enter and only the first pipeline stage builds a tower.
    """
    assert groups.ep.size() == 1, "AMALIA-VL is dense: expert_model_parallel_size must be 1"
    return ProcessGroupCollection(tp=groups.ep, cp=groups.ep, pp=groups.ep, ep=groups.ep)


class VisionTower(MegatronModule):
    """pixel_values [T, C, image_size, image_size] -> features [T, P, v]. The same parameters on every TP rank."""

    def __init__(
        self,
        vision: VisionConfig,
        decoder: TransformerConfig,
        groups: ProcessGroupCollection,
        tower_recompute: bool,
    ):
        check_vision(vision)
        config = tower_config(vision, decoder, tower_recompute)
        super().__init__(config=config)
        self.tp_group = groups.tp
        width, dtype = vision.hidden_size, config.params_dtype
        self.patch_embedding = nn.Conv2d(
            vision.num_channels, width, kernel_size=vision.patch_size, stride=vision.patch_size, dtype=dtype
        )
        self.position_embedding = nn.Embedding(vision.patches_per_side**2, width, dtype=dtype)
        self.decoder = TransformerBlock(
            config, vision_layer_spec(config), post_layer_norm=False, pg_collection=alone(groups)
        )
        # SigLIP checkpoints carry this norm and LLaVA-NeXT's features do not pass through it: kept, frozen, so that
        # import and export give every tensor back.
        self.post_layernorm = nn.LayerNorm(width, eps=vision.layernorm_epsilon, dtype=dtype).requires_grad_(False)
        mark_replicated(self)
        if config.perform_initialization:
            initialise_alike(self, config.init_method_std)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[T, C, H, W] -> [T, P, v]. Keeps no activations while the tower is frozen."""
        trains = any(parameter.requires_grad for parameter in self.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
            # Called as a module: overlapped parameter gathers wait in the forward hooks of a parameter's own module.
            places = torch.arange(self.position_embedding.num_embeddings, device=patches.device)
            hidden = patches.flatten(2).transpose(1, 2) + self.position_embedding(places)
            hidden = self.decoder(hidden.transpose(0, 1).contiguous(), attention_mask=None)  # [P, T, v]
            return hidden.transpose(0, 1)

    def set_input_tensor(self, input_tensor) -> None:
        """The tower has no pipeline stage before it; Megatron's schedules may still call this with None."""

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None) -> dict:
        """As the base class's, with the true TP rank in every replica id.

        The layers believe in a TP group of one, so all TP ranks would call themselves the main replica, and
        distributed checkpointing refuses to save a tensor with two owners.
        """
        state = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        for entry in state.values():
            first, _, last = entry.replica_id
            entry.replica_id = (first, self.tp_group.rank(), last)
        return state
