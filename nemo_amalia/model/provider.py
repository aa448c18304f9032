"""What Megatron Bridge instantiates: the model's config, which is also its factory.

Saved in run_config.yaml by ``_target_`` and built again from it when a run resumes or a checkpoint is exported;
``register_allowed_target_prefix("nemo_amalia")`` must have been called by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from megatron.bridge.models.gpt_provider import GPTModelProvider
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.gpt import GPTModel
from megatron.core.pipeline_parallel.utils import (
    is_pp_first_stage,
    is_pp_last_stage,
    is_vp_first_stage,
    is_vp_last_stage,
)
from megatron.core.transformer import ModuleSpec

from nemo_amalia.config.schema import MODULES, ModelConfig, ParallelConfig, StageConfig
from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.model.amalia_vl import AmaliaVLModel
from nemo_amalia.model.connectors import ConnectorConfig, output_side
from nemo_amalia.model.freeze import apply_freeze, check_modules
from nemo_amalia.model.layer_specs import decoder_layer_spec
from nemo_amalia.model.rotary import PackRotaryEmbedding
from nemo_amalia.model.vision import VisionConfig, check_vision
from nemo_amalia.utils.errors import ConfigError

__all__ = ["AmaliaVLModelProvider", "ConnectorConfig", "VisionConfig"]


def _default_pinpoints() -> list[list[int]]:
    return [list(canvas) for canvas in grids_up_to(12, VisionConfig.image_size)]


@dataclass
class AmaliaVLModelProvider(GPTModelProvider):
    """Decoder fields as GPTModelProvider's, and those of a LLaVA-NeXT.

    vision, connector: shapes of tower and connector. image_token_id: the placeholder in the text.
    image_grid_pinpoints: allowed canvases in pixels as [height, width]. tiling: the batches bring a grid beside the
    thumbnail (stage 1 of the paper: False). tower_data_parallel: share the tiles out over the TP ranks; False encodes
    all of them on each. tower_recompute: keep no activations of the tower's layers.
    trainable: which of tower, connector, decoder learn; the rest is frozen.
    """

    # The outer model splices images into whole rows first, and scatters them after.
    scatter_embedding_sequence_parallel: bool = False
    transformer_layer_spec: ModuleSpec | Callable = decoder_layer_spec
    vision: VisionConfig = field(default_factory=VisionConfig)
    connector: ConnectorConfig = field(default_factory=ConnectorConfig)
    image_token_id: int = 0
    image_grid_pinpoints: list[list[int]] = field(default_factory=_default_pinpoints)
    tiling: bool = StageConfig.tiling
    tower_data_parallel: bool = ModelConfig.tower_data_parallel
    tower_recompute: bool = ParallelConfig.tower_recompute
    trainable: list[str] = field(default_factory=lambda: list(MODULES))

    def finalize(self) -> None:
        """Megatron's own checks, and ours. Raises ConfigError for a model that cannot be built."""
        check_vision(self.vision)
        check_modules(self.trainable)
        self.image_geometry()
        if self.scatter_embedding_sequence_parallel:
            raise ConfigError("scatter_embedding_sequence_parallel must be False: images are spliced into whole rows")
        if self.expert_model_parallel_size != 1:
            raise ConfigError(f"expert_model_parallel_size is {self.expert_model_parallel_size}: the model is dense")
        if self.vocab_size is not None and not 0 <= self.image_token_id < self.vocab_size:
            raise ConfigError(
                f"image_token_id is {self.image_token_id} and the vocabulary has {self.vocab_size} entries: "
                "it must cover <image>"
            )
        super().finalize()

    def image_geometry(self) -> ImageGeometry:
        """How images become tokens for this tower and connector. Raises ConfigError when they do not fit the tile.

        ImageGeometry's patch is the square of pixels behind one token of the connector: the tower's patch for mlp and
        linear, a multiple of it for connectors that give fewer tokens.
        """
        tile = self.vision.image_size
        side = output_side(self.connector, self.vision.patches_per_side)
        if side > tile or tile // (tile // side) != side:
            raise ConfigError(
                f"connector {self.connector.type!r} gives {side} tokens a side and a tile has {tile} pixels: "
                "take a number of tokens that divides the tile"
            )
        return ImageGeometry(tile, tile // side, tuple((h, w) for h, w in self.image_grid_pinpoints))

    def provide(
        self, pre_process: bool | None = None, post_process: bool | None = None, vp_stage: int | None = None
    ) -> AmaliaVLModel:
        """This rank's stage of the model, frozen as ``trainable`` says. Without flags: by its pipeline rank."""
        size, pipeline = self.virtual_pipeline_model_parallel_size, self._pg_collection.pp
        if pre_process is None:
            pre_process = is_vp_first_stage(vp_stage=vp_stage, vp_size=size) and is_pp_first_stage(pipeline)
        if post_process is None:
            post_process = is_vp_last_stage(vp_stage=vp_stage, vp_size=size) and is_pp_last_stage(pipeline)
        model = AmaliaVLModel(self, pre_process=pre_process, post_process=post_process, vp_stage=vp_stage)
        apply_freeze(model, self.trainable)
        return model

    def provide_language_model(
        self, pre_process: bool | None = None, post_process: bool | None = None, vp_stage: int | None = None
    ) -> GPTModel:
        """The decoder alone. Without the fused kernel a pack's positions are turned together (rotary.py)."""
        decoder = super().provide(pre_process=pre_process, post_process=post_process, vp_stage=vp_stage)
        if not self.apply_rope_fusion and type(getattr(decoder, "rotary_pos_emb", None)) is RotaryEmbedding:
            decoder.rotary_pos_emb = PackRotaryEmbedding(decoder.rotary_pos_emb)
        return decoder
