"""TorchSpecProvider against transformers' Llama, sequence by sequence: logits, loss and every gradient, at each layout.

Tolerances. Both sides compute in fp32 with the same weights and differ in the order of sums only. Logits reach 7 here.
On one rank they were equal bit for bit; seen at worst: 1.0e-5 on two ranks, 1.4e-5 on TP2xCP2+SP, and 6e-6 for
gradients, relative to the largest entry of their own tensor. Twice the worst logits and gradients is allowed. A wrong
mask, a segment that sees its neighbour, a position that does not restart, a norm gradient that is not summed over the
ranks: each moves values by far more than that.
"""

import pytest
import tiny_hf
from launcher import launch
from tiny_megatron import Layout, model_of

LOGITS, GRADIENTS, LOSS = 2e-5, 1e-5, 1e-6
# Segments of a pack; each divides into 2 * CP chunks for CP = 2. The rows of a batch are all of the same length.
SEGMENTS, ROWS = (12, 24, 4), (20, 20)


def sequences(lengths):
    import torch

    generator = torch.Generator().manual_seed(7)
    return [torch.randint(4, tiny_hf.VOCABULARY, (n,), generator=generator) for n in lengths]


def reference(folder, lengths):
    """Logits [1, sum of lengths, V], mean loss and gradients by name, one sequence at a time."""
    import torch
    import torch.nn.functional as F
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    runs = sequences(lengths)
    logits = [model(run[None]).logits for run in runs]
    # Every token has a label here (the next one, the first after the last): each position's gradient is tested.
    losses = [F.cross_entropy(out[0], run.roll(-1), reduction="sum") for out, run in zip(logits, runs, strict=True)]
    loss = sum(losses) / sum(lengths)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return torch.cat(logits, 1).detach(), loss.item(), gradients


def batch(packed):
    """tokens, labels, position_ids [B, S] and what Megatron wants to know about the pack."""
    import torch
    from megatron.core.packed_seq_params import PackedSeqParams

    lengths = SEGMENTS if packed else ROWS
    runs = sequences(lengths)
    columns = (runs, [run.roll(-1) for run in runs], [torch.arange(n) for n in lengths])
    if not packed:
        return [torch.stack(column) for column in columns], None
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    longest = max(lengths)
    params = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=longest, max_seqlen_kv=longest
    )
    return [torch.cat(column)[None] for column in columns], params


def mine(layout, packed):
    """Which tokens of each row this context-parallel rank holds."""
    import torch
    from megatron.core import parallel_state

    from nemo_amalia.model.context_parallel import pack_indices

    bounds = [0, *torch.tensor(SEGMENTS).cumsum(0).tolist()] if packed else [0, ROWS[0]]
    return pack_indices(bounds, parallel_state.get_context_parallel_rank(), layout.cp)


def sum_gradients(model, layout):
    """What Megatron's finalisation and its DDP do: norms' gradients over TP under SP, all of them over CP."""
    import torch.distributed as dist
    from megatron.core import parallel_state

    for parameter in model.parameters():
        if layout.sp and getattr(parameter, "sequence_parallel", False):
            dist.all_reduce(parameter.grad, group=parallel_state.get_tensor_model_parallel_group())
        if layout.cp > 1:
            dist.all_reduce(parameter.grad, group=parallel_state.get_context_parallel_group())


def compare(folder, layout, packed):
    """Largest differences from transformers: logits; loss; gradients, each relative to its tensor."""
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state

    want, want_loss, want_gradients = reference(folder, SEGMENTS if packed else ROWS)
    with model_of(folder, layout) as (bridge, (model,)):
        model.train()  # sequence parallelism and gradients as in training; there is no dropout
        (tokens, labels, positions), params = batch(packed)
        own = mine(layout, packed)
        tokens, labels, positions = (x[:, own] for x in (tokens, labels, positions))
        logits = model(tokens, positions, None, packed_seq_params=params)
        want = (want if packed else want.view(len(ROWS), ROWS[0], -1))[:, own]
        want = want.chunk(layout.tp, -1)[parallel_state.get_tensor_model_parallel_rank()]
        losses = model(tokens, positions, None, labels=labels, packed_seq_params=params)
        loss = losses.sum() / sum(SEGMENTS if packed else ROWS)
        loss.backward()
        sum_gradients(model, layout)
        total = loss.detach().clone()
        if layout.cp > 1:
            dist.all_reduce(total, group=parallel_state.get_context_parallel_group())
        with torch.no_grad():  # the weight map turns gradients into transformers' names and shapes as well
            for parameter in model.parameters():
                parameter.copy_(parameter.grad)
        gradients = dict(bridge.export_hf_weights([model], cpu=True, show_progress=False))
    assert set(gradients) == set(want_gradients)
    worst = max(((gradients[n] - w).abs().max() / w.abs().max()).item() for n, w in want_gradients.items())
    return (logits - want).abs().max().item(), abs(total.item() - want_loss), worst


def compare_all(folder, cases):
    return {f"{layout} {'packed' if packed else 'rows'}": compare(folder, layout, packed) for layout, packed in cases}


BY_RANKS = {
    1: [Layout()],
    2: [Layout(tp=2), Layout(tp=2, sp=True), Layout(cp=2)],
    4: [Layout(tp=2, cp=2, sp=True)],
}


@pytest.mark.parametrize("ranks", BY_RANKS)
def test_logits_loss_and_gradients_are_those_of_transformers(ranks, tmp_path):
    folder = tiny_hf.llama(tmp_path / "llama")
    cases = [(layout, packed) for layout in BY_RANKS[ranks] for packed in (True, False)]
    for result in launch(compare_all, ranks, {"folder": str(folder), "cases": cases}, timeout=400):
        for case, (logits, loss, gradients) in result.items():
            assert logits < LOGITS, (case, logits)
            assert loss < LOSS, (case, loss)
            assert gradients < GRADIENTS, (case, gradients)


def change_a_neighbour(folder):
    """Largest change of the second segment's logits when the first one's tokens change."""
    import torch

    with model_of(folder) as (_, (model,)), torch.no_grad():
        model.eval()
        (tokens, _, positions), params = batch(packed=True)
        before = model(tokens, positions, None, packed_seq_params=params)
        tokens[:, : SEGMENTS[0]] = 5
        after = model(tokens, positions, None, packed_seq_params=params)
    second = slice(SEGMENTS[0], None)
    return (before - after)[:, second].abs().max().item(), (before - after).abs().max().item()


def test_attention_does_not_cross_segments(tmp_path):
    folder = tiny_hf.llama(tmp_path / "llama")
    [(elsewhere, changed)] = launch(change_a_neighbour, 1, {"folder": str(folder)})
    assert elsewhere == 0.0 and changed > 0.1
