"""A pack's angles restart with every segment: turned together they are what each segment gives alone."""

from launcher import launch


def turn_a_pack() -> dict:
    import torch
    from megatron.core.models.common.embeddings.rope_utils import _apply_rotary_pos_emb_thd
    from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
    from megatron.core.packed_seq_params import PackedSeqParams

    from nemo_amalia.model.rotary import PackRotaryEmbedding

    torch.distributed.init_process_group("gloo")
    group = torch.distributed.group.WORLD
    rows = RotaryEmbedding(16, 1.0, cp_group=group)
    packs = PackRotaryEmbedding(rows)
    bounds = torch.tensor([0, 5, 6, 17], dtype=torch.int32)
    pack = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=11, max_seqlen_kv=11
    )
    longest = packs.get_rotary_seq_len(None, None, None, None, pack)
    together, each = packs(longest, packed_seq=True), rows(longest, packed_seq=True)
    tokens = torch.randn(17, 2, 16, generator=torch.Generator().manual_seed(0))
    return {
        "shapes": (tuple(together.shape), tuple(each.shape)),
        "restarts": torch.equal(together[5], each[0]) and torch.equal(together[16], each[10]),
        "equal": torch.equal(
            _apply_rotary_pos_emb_thd(tokens, bounds, together, cp_group=group),
            _apply_rotary_pos_emb_thd(tokens, bounds, each, cp_group=group),
        ),
        "rows": torch.equal(packs(7), rows(7)),
    }


def test_a_pack_is_turned_as_its_segments_are():
    (found,) = launch(turn_a_pack, nproc=1)
    assert found == {"shapes": ((17, 1, 1, 16), (11, 1, 1, 16)), "restarts": True, "equal": True, "rows": True}
