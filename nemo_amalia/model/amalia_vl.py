"""AMALIA-VL: SigLIP tower, connector, image_newline and decoder, after LLaVA-NeXT.

Tower, connector and newline live on the first pipeline stage. The decoder is Megatron-Core's GPTModel, which
Bridge still uses for Llama; the choice is made in provider.py alone.

Legend: B rows, S tokens of a row (of the whole pack), T tiles, I images, h width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from megatron.core.enums import ModelType
from megatron.core.tensor_parallel.mappings import scatter_to_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn

from nemo_amalia.data.images.geometry import ImageGeometry
from nemo_amalia.model.connectors import ConnectorConfig, build_connector
from nemo_amalia.model.context_parallel import pack_indices
from nemo_amalia.model.splice import pack_image_features, splice, without_images
from nemo_amalia.model.tile_parallel import gather_tiles, mark_replicated, share_of_tiles
from nemo_amalia.model.vision import VisionConfig, VisionTower

if TYPE_CHECKING:
    from megatron.core.packed_seq_params import PackedSeqParams


class StageSettings(Protocol):
    """What a pipeline stage is built from; AmaliaVLModelProvider (provider.py) has it all."""

    vision: VisionConfig
    connector: ConnectorConfig
    hidden_size: int
    image_token_id: int
    params_dtype: torch.dtype
    sequence_parallel: bool
    share_embeddings_and_output_weights: bool
    tower_data_parallel: bool
    tower_recompute: bool

    def image_geometry(self) -> ImageGeometry:
        """Tile size, patch size and grids."""

    def provide_language_model(self, pre_process: bool, post_process: bool, vp_stage: int | None) -> MegatronModule:
        """The decoder layers of one stage."""


class AmaliaVLModel(MegatronModule):
    """One pipeline stage (or virtual stage) of AMALIA-VL.

    Attributes: vision_tower, connector, image_newline [h] (first stage only), language_model.
    """

    def __init__(
        self,
        config: StageSettings,
        pre_process: bool = True,
        post_process: bool = True,
        vp_stage: int | None = None,
    ):
        super().__init__(config=config)
        groups = config._pg_collection
        self.pg_collection, self.tp_group, self.cp_group = groups, groups.tp, groups.cp
        self.pre_process, self.post_process, self.vp_stage = pre_process, post_process, vp_stage
        self.model_type = ModelType.encoder_or_decoder
        if pre_process:
            self.geometry = config.image_geometry()
            self.vision_tower = VisionTower(config.vision, config, groups, config.tower_recompute)
            self.connector = build_connector(
                config.connector,
                vision_hidden=config.vision.hidden_size,
                hidden=config.hidden_size,
                patches_per_side=config.vision.patches_per_side,
                dtype=config.params_dtype,
            )
            self.image_newline = nn.Parameter(torch.randn(config.hidden_size).to(config.params_dtype))
            self.image_newline.data.mul_(config.hidden_size**-0.5)  # as transformers draws it
            mark_replicated(self)  # before the decoder exists: its parameters are split for real
        self.language_model = config.provide_language_model(pre_process, post_process, vp_stage)
        # Megatron asks the outermost module for these when it finalises gradients.
        self.share_embeddings_and_output_weights = config.share_embeddings_and_output_weights
        self.shared_embedding_or_output_weight = self.language_model.shared_embedding_or_output_weight

    def set_input_tensor(self, input_tensor) -> None:
        """Hidden states of the stage before, from Megatron's pipeline schedule."""
        self.language_model.set_input_tensor(input_tensor)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        loss_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | Sequence[tuple[int, int]] | None = None,
        tiles_per_image: Tensor | Sequence[int] | None = None,
        image_order: Tensor | Sequence[int] | None = None,
        packed_seq_params: PackedSeqParams | None = None,
        inference_context=None,
        runtime_gather_output: bool | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Loss of every token [B, S / CP], or logits [B, S / CP, V / TP] without labels; and the local loss mask.

        input_ids, labels, loss_mask [B, S], whole on every rank. pixel_values [T, C, H, W]. image_sizes [I, 2] as
        (height, width), tiles_per_image [I] and image_order [J] (which image stands where in the text; None: each once,
        in order) are host values. A training micro-batch without images brings one
        zero tile and an empty tiles_per_image; without pixel_values the tower does not run. position_ids are not
        read: positions are counted from 0 in every row, or in every segment of ``packed_seq_params``, whose
        max_seqlen must be its longest segment's. Earlier stages return hidden states.
        Raises ConfigError when images, tiles and placeholders do not fit together.
        """
        local = self._local_tokens(input_ids.shape[1], packed_seq_params)
        decoder_input = None
        if self.pre_process:
            decoder_input = self._embed(input_ids, pixel_values, image_sizes, tiles_per_image, image_order)
            if local is not None:
                decoder_input = decoder_input.index_select(0, local.to(decoder_input.device))
            if self.config.sequence_parallel:
                decoder_input = scatter_to_sequence_parallel_region(decoder_input, group=self.tp_group)
        if local is not None:
            labels, loss_mask = (
                None if x is None else x.index_select(1, local.to(x.device)) for x in (labels, loss_mask)
            )
        output = self.language_model(
            input_ids=None,
            position_ids=None,
            attention_mask=attention_mask,
            decoder_input=decoder_input,
            labels=labels,
            loss_mask=loss_mask,
            inference_context=inference_context,
            packed_seq_params=packed_seq_params,
            runtime_gather_output=runtime_gather_output,
        )
        return output, loss_mask

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Connector tokens of all tiles, the same on every TP rank: [T, C, H, W] -> [T, m, h]."""
        if not self.config.tower_data_parallel or self.tp_group.size() == 1:
            return self.connector(self.vision_tower(pixel_values))
        mine = share_of_tiles(pixel_values, self.tp_group)
        return gather_tiles(self.connector(self.vision_tower(mine)), self.tp_group, pixel_values.shape[0])

    def _embed(
        self, input_ids: Tensor, pixel_values: Tensor | None, image_sizes, tiles_per_image, image_order
    ) -> Tensor:
        """Decoder input [S, B, h] of whole rows: text, and image tokens where their placeholders are."""
        embeddings = self.language_model.embedding(input_ids=input_ids, position_ids=None)
        if pixel_values is None:
            return embeddings
        encoded = self.encode(pixel_values)
        sizes, tiles = _to_list(image_sizes), _to_list(tiles_per_image)
        if not tiles:
            return without_images(embeddings, encoded, self.image_newline)
        order = None if image_order is None else _to_list(image_order)
        features = pack_image_features(encoded, sizes, tiles, self.geometry, self.image_newline, order)
        return splice(embeddings, input_ids, self.config.image_token_id, features)

    def _local_tokens(self, length: int, packed_seq_params: PackedSeqParams | None) -> Tensor | None:
        """Indices into a row (or pack) of the tokens that this context-parallel rank holds; None without CP.

        Bridge's slice_batch_for_context_parallel needs embeddings, and a later pipeline stage has only labels.
        """
        rank, size = self.cp_group.rank(), self.cp_group.size()
        if size == 1:
            return None
        bounds = [0, length]
        if packed_seq_params is not None:
            padded = packed_seq_params.cu_seqlens_q_padded
            bounds = (packed_seq_params.cu_seqlens_q if padded is None else padded).tolist()
        return pack_indices(bounds, rank, size)


def _to_list(values) -> list:
    if values is None:
        return []
    return values.tolist() if isinstance(values, Tensor) else list(values)
