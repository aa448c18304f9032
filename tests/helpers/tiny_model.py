"""A tiny AMALIA-VL with weights that are the same at every layout, and one training step of it by Megatron's schedules.

Imported inside ranks that tests/helpers/launcher.py starts: Megatron is loaded there.
"""

import hashlib
import re
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core import parallel_state as ps
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.distributed.finalize_model_grads import finalize_model_grads
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate

from nemo_amalia.model.provider import AmaliaVLModelProvider, ConnectorConfig, VisionConfig

TILE, PATCH, VOCABULARY, IMAGE = 32, 8, 256, 5
PINPOINTS = [[rows * TILE, columns * TILE] for rows in range(1, 7) for columns in range(1, 6 // rows + 1)]


def make_provider(**changes) -> AmaliaVLModelProvider:
    """A decoder of 4 layers and a tower of 3, fp32, no fusions (they round: cross entropy to bf16). Finalised."""
    values = dict(
        num_layers=4, hidden_size=64, num_attention_heads=4, num_query_groups=2, ffn_hidden_size=128, seq_length=512,
        vocab_size=VOCABULARY, normalization="RMSNorm", layernorm_epsilon=1e-6, gated_linear_unit=True,
        activation_func=F.silu, add_bias_linear=False, hidden_dropout=0.0, attention_dropout=0.0,
        position_embedding_type="rope", share_embeddings_and_output_weights=False, pipeline_dtype=torch.float32,
        params_dtype=torch.float32, bias_activation_fusion=False, gradient_accumulation_fusion=False,
        masked_softmax_fusion=False, bias_dropout_fusion=False, persist_layer_norm=False, apply_rope_fusion=False,
        cross_entropy_loss_fusion=False, calculate_per_token_loss=True,
        vision=VisionConfig(48, 3, 4, 72, image_size=TILE, patch_size=PATCH), connector=ConnectorConfig("mlp"),
        image_token_id=IMAGE, image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    provider = AmaliaVLModelProvider(**{**values, **changes})
    provider.finalize()
    provider.variable_seq_lengths = True  # after finalize, as Bridge does: it refuses it before, for MoE's sake
    return provider


def build(provider: AmaliaVLModelProvider):
    """This rank's DDP-wrapped stage with weights drawn by name. Call ps.destroy_model_parallel() before the next."""
    provider.initialize_model_parallel(seed=0)
    ddp = DistributedDataParallelConfig(use_distributed_optimizer=True)
    (model,) = provider.provide_distributed_model(ddp_config=ddp, wrap_with_ddp=True)
    draw_weights(model.module)
    return model


def whole_name(name: str, model) -> str:
    """The parameter's name with its layer counted over all pipeline stages."""
    match = re.match(r"(language_model\.decoder\.layers\.)(\d+)(.*)", name)
    if not match:
        return name
    layer = model.language_model.decoder.layers[int(match[2])].layer_number - 1
    return f"{match[1]}{layer}{match[3]}"


def _shards(name: str, parameter, whole: torch.Tensor) -> torch.Tensor:
    """The piece of a whole decoder parameter that this TP rank holds; gate and up are split each for itself."""
    size, rank = ps.get_tensor_model_parallel_world_size(), ps.get_tensor_model_parallel_rank()
    if not getattr(parameter, "tensor_model_parallel", False):
        return whole
    halves = whole.chunk(2) if "linear_fc1.weight" in name else [whole]
    return torch.cat([half.chunk(size, parameter.partition_dim)[rank] for half in halves])


@torch.no_grad()
def draw_weights(model) -> None:
    size = ps.get_tensor_model_parallel_world_size()
    for name, parameter in model.named_parameters():
        full = whole_name(name, model)
        shape = list(parameter.shape)
        if getattr(parameter, "tensor_model_parallel", False):
            shape[parameter.partition_dim] *= size
        seed = int.from_bytes(hashlib.sha256(full.encode()).digest()[:4], "little")
        whole = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1
        centre = 1.0 if "norm" in full and full.endswith("weight") else 0.0
        parameter.copy_(_shards(full, parameter, whole + centre))


def make_batch(provider, sizes=((100, 100), (31, 90)), text=5, seed=3, packed=False) -> dict:
    """A row of text and images, padded to a multiple of 8; without sizes: text and one zero tile."""
    geometry, generator = provider.image_geometry(), torch.Generator().manual_seed(seed)
    pieces, tiles = [], [geometry.num_tiles(w, h, provider.tiling) for h, w in sizes]
    for height, width in sizes:
        pieces.append(torch.randint(6, VOCABULARY, (text,), generator=generator))
        pieces.append(torch.full((geometry.num_tokens(width, height, provider.tiling),), IMAGE))
    pieces.append(torch.randint(6, VOCABULARY, (40,), generator=generator))
    tokens = torch.cat(pieces)
    tokens = torch.cat([tokens, tokens.new_full((-len(tokens) % 8,), 9)])[None]
    pixels = torch.randn(sum(tiles), 3, TILE, TILE, generator=generator) if tiles else torch.zeros(1, 3, TILE, TILE)
    batch = dict(
        input_ids=tokens, labels=tokens.roll(-1, 1), loss_mask=torch.ones(tokens.shape), pixel_values=pixels,
        image_sizes=torch.tensor(sizes).reshape(-1, 2), tiles_per_image=torch.tensor(tiles, dtype=torch.long),
    )  # fmt: skip
    batch["loss_mask"][:, ::3] = 0
    if packed:
        bounds = torch.tensor([0, 16, tokens.shape[1] - 8, tokens.shape[1]], dtype=torch.int32)
        longest = int(bounds.diff().max())
        batch["packed_seq_params"] = PackedSeqParams("thd", bounds, bounds, max_seqlen_q=longest, max_seqlen_kv=longest)
    return batch


@dataclass
class Step:
    """loss: summed over tokens. norm: of all gradients, duplicates counted once. gradients: of this rank, by name."""

    loss: float
    norm: float
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)


def run_step(provider, batches: list[dict]) -> Step:
    """Forward and backward of the micro-batches, gradients finalised as in training."""
    model = build(provider)
    model.zero_grad_buffer()
    provider.finalize_model_grads_func = finalize_model_grads

    def forward_step(iterator, stage):
        output, mask = stage(position_ids=None, **next(iterator))
        return output, lambda losses: ((losses * mask).sum(), mask.sum().int(), {"loss": (losses * mask).sum()})

    longest = max(batch["input_ids"].shape[1] for batch in batches)
    reports = get_forward_backward_func()(
        forward_step_func=forward_step, data_iterator=iter(batches), model=[model], num_microbatches=len(batches),
        seq_length=longest, micro_batch_size=1,
    )  # fmt: skip
    loss = torch.tensor([sum(float(report["loss"]) for report in reports)], dtype=torch.float64)
    dist.all_reduce(loss, group=ps.get_context_parallel_group())
    dist.all_reduce(loss, group=ps.get_pipeline_model_parallel_group())
    step = Step(float(loss), *_gradients(model))
    ps.destroy_model_parallel()
    return step


def _gradients(model) -> tuple[float, dict[str, torch.Tensor]]:
    """Norm over the model, and whole gradients by name. The distributed optimizer leaves each rank one valid shard."""
    group = ps.get_data_parallel_group(with_context_parallel=True)
    for bucket in (bucket for buffer in model.buffers for bucket in buffer.buckets):
        shard = bucket.grad_data.numel() // group.size()
        valid = torch.zeros_like(bucket.grad_data)
        own = slice(group.rank() * shard, (group.rank() + 1) * shard)
        valid[own] = bucket.grad_data[own]
        dist.all_reduce(valid, group=group)
        bucket.grad_data.copy_(valid)
    trained = {name: p for name, p in model.module.named_parameters() if p.requires_grad}
    square = torch.zeros(1, dtype=torch.float64)
    for parameter in trained.values():
        if param_is_not_tensor_parallel_duplicate(parameter, ps.get_tensor_model_parallel_group()):
            square += parameter.main_grad.double().square().sum()
    dist.all_reduce(square, group=ps.get_model_parallel_group())
    return float(square.sqrt()), {whole_name(n, model.module): p.main_grad.clone() for n, p in trained.items()}


def piece_of(name: str, whole: torch.Tensor, piece: torch.Tensor, rank: int) -> torch.Tensor:
    """The part of a whole gradient that corresponds to ``piece``, held by TP rank ``rank``."""
    if whole.shape == piece.shape:
        return whole
    axis = next(i for i, (a, b) in enumerate(zip(whole.shape, piece.shape, strict=True)) if a != b)
    size = whole.shape[axis] // piece.shape[axis]
    halves = whole.chunk(2) if "linear_fc1.weight" in name else [whole]
    return torch.cat([half.chunk(size, axis)[rank] for half in halves])
