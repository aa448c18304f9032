"""The weight map as data: Megatron parameter names on the left, Hugging Face names on the right.

``*`` is a layer. Left names are below ``vision_tower.``, ``connector.`` and ``language_model.``; right names are below
the prefixes of a KeyForm, for the same tensor has been written under three names by different transformers releases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nemo_amalia.utils.errors import CheckpointError

# Everything of the tower and the connector is whole on every tensor-parallel rank.
TOWER = {
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "patch_embedding.bias": "embeddings.patch_embedding.bias",
    "position_embedding.weight": "embeddings.position_embedding.weight",
    "decoder.layers.*.self_attention.linear_qkv.layer_norm_weight": "encoder.layers.*.layer_norm1.weight",
    "decoder.layers.*.self_attention.linear_qkv.layer_norm_bias": "encoder.layers.*.layer_norm1.bias",
    "decoder.layers.*.self_attention.linear_proj.weight": "encoder.layers.*.self_attn.out_proj.weight",
    "decoder.layers.*.self_attention.linear_proj.bias": "encoder.layers.*.self_attn.out_proj.bias",
    "decoder.layers.*.mlp.linear_fc1.layer_norm_weight": "encoder.layers.*.layer_norm2.weight",
    "decoder.layers.*.mlp.linear_fc1.layer_norm_bias": "encoder.layers.*.layer_norm2.bias",
    "decoder.layers.*.mlp.linear_fc1.weight": "encoder.layers.*.mlp.fc1.weight",
    "decoder.layers.*.mlp.linear_fc1.bias": "encoder.layers.*.mlp.fc1.bias",
    "decoder.layers.*.mlp.linear_fc2.weight": "encoder.layers.*.mlp.fc2.weight",
    "decoder.layers.*.mlp.linear_fc2.bias": "encoder.layers.*.mlp.fc2.bias",
    "post_layernorm.weight": "post_layernorm.weight",
    "post_layernorm.bias": "post_layernorm.bias",
}
# Megatron keeps query, key and value of a head side by side in one tensor: (q, k, v) on the right.
TOWER_QKV = {
    f"decoder.layers.*.self_attention.linear_qkv.{kind}": tuple(
        f"encoder.layers.*.self_attn.{part}_proj.{kind}" for part in "qkv"
    )
    for kind in ("weight", "bias")
}
CONNECTOR = {f"linear_{i}.{kind}": f"linear_{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
NEWLINE = "image_newline"

DECODER = {
    "embedding.word_embeddings.weight": "embed_tokens.weight",
    "decoder.layers.*.self_attention.linear_qkv.layer_norm_weight": "layers.*.input_layernorm.weight",
    "decoder.layers.*.self_attention.linear_proj.weight": "layers.*.self_attn.o_proj.weight",
    "decoder.layers.*.mlp.linear_fc1.layer_norm_weight": "layers.*.post_attention_layernorm.weight",
    "decoder.layers.*.mlp.linear_fc2.weight": "layers.*.mlp.down_proj.weight",
    "decoder.final_layernorm.weight": "norm.weight",
}
DECODER_QKV = {
    "decoder.layers.*.self_attention.linear_qkv.weight": tuple(f"layers.*.self_attn.{p}_proj.weight" for p in "qkv")
}
# (gate, up) on the right.
DECODER_GATED = {
    "decoder.layers.*.mlp.linear_fc1.weight": ("layers.*.mlp.gate_proj.weight", "layers.*.mlp.up_proj.weight")
}
OUTPUT = "output_layer.weight"

# In checkpoints, and of no use to LLaVA-NeXT: SigLIP's pooling head, and buffers that older releases saved.
UNUSED = ("head.", "position_ids", "rotary_emb.inv_freq")


@dataclass(frozen=True)
class KeyForm:
    """Prefixes under which a folder keeps its tensors."""

    tower: str
    connector: str
    newline: str
    decoder: str
    output: str


# What we write, and what transformers 4.57 and 5 both read.
PORTABLE = KeyForm(
    tower="vision_tower.vision_model.",
    connector="multi_modal_projector.",
    newline="image_newline",
    decoder="language_model.model.",
    output="language_model.lm_head.weight",
)
# transformers 5 writes the tower without ``vision_model.``.
FORMS = (
    PORTABLE,
    KeyForm(**{**PORTABLE.__dict__, "tower": "vision_tower."}),
    # The names of transformers 5's own state_dict, and of 4.57's below ``model.vision_tower.``.
    KeyForm("model.vision_tower.", "model.multi_modal_projector.", "model.image_newline", "model.language_model.",
            "lm_head.weight"),
    KeyForm("model.vision_tower.vision_model.", "model.multi_modal_projector.", "model.image_newline",
            "model.language_model.", "lm_head.weight"),
)  # fmt: skip


def key_form(keys: Iterable[str]) -> KeyForm:
    """The form of a folder's keys. Raises CheckpointError when it is none that we know."""
    present = set(keys)
    for form in FORMS:
        if form.tower + TOWER["patch_embedding.weight"] in present and form.decoder + "embed_tokens.weight" in present:
            return form
    shown = ", ".join(sorted(present)[:3]) or "no tensor at all"
    raise CheckpointError(
        f"the checkpoint's tensors are named like {shown}; expected a LLaVA-NeXT with "
        f"{PORTABLE.tower}* and {PORTABLE.decoder}*: export it again with transformers' save_pretrained"
    )


def hf_keys(form: KeyForm, vision_layers: int, layers: int, tied: bool) -> list[str]:
    """Every tensor name that a folder of this size must have."""
    tower = [*TOWER.values(), *(name for names in TOWER_QKV.values() for name in names)]
    decoder = [*DECODER.values()]
    for table in (DECODER_QKV, DECODER_GATED):
        decoder += [name for names in table.values() for name in names]
    keys = [form.tower + name for name in _expand(tower, vision_layers)]
    keys += [form.connector + name for name in CONNECTOR.values()] + [form.newline]
    keys += [form.decoder + name for name in _expand(decoder, layers)]
    return keys if tied else keys + [form.output]


def _expand(names: Iterable[str], layers: int) -> Iterator[str]:
    for name in names:
        yield from (name.replace("*", str(i)) for i in range(layers)) if "*" in name else (name,)


def check_keys(present: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Raises CheckpointError when tensors are missing, or are there that the model would silently drop."""
    present, expected = set(present), set(expected)
    missing = sorted(expected - present)
    if missing:
        raise CheckpointError(
            f"{where} lacks {len(missing)} of {len(expected)} tensors, e.g. {missing[0]}: the folder is incomplete or "
            "its config.json belongs to another model"
        )
    extra = sorted(key for key in present - expected if not any(part in key for part in UNUSED))
    if extra:
        raise CheckpointError(
            f"{where} has {len(extra)} tensors that this model has no place for, e.g. {extra[0]}: "
            "its config.json belongs to another model, or an adapter must be merged first"
        )
