"""A plan as a page of text: one screen, the assumptions below it."""

from __future__ import annotations

from nemo_amalia.cluster.plan import rates
from nemo_amalia.cluster.plan.microbatch import assumptions
from nemo_amalia.cluster.plan.plan import GIB, RESERVED_GIB, Plan, card_gib
from nemo_amalia.cluster.plan.stages import micro_batches
from nemo_amalia.cluster.plan.worst_pack import worst_of
from nemo_amalia.config.derived import model_ranks

_PART_NAMES = {"decoder": "decoder matrices", "attention": "decoder attention", "output": "output layer"}


def layout_name(plan: Plan) -> str:
    """TP4 SP x PP2 VPP3 x CP2 x DP16."""
    p = plan.run.parallel
    words = [f"TP{p.tensor}" + (" SP" if p.sequence else "")]
    if p.pipeline > 1:
        words.append(f"PP{p.pipeline}" + (f" VPP{p.virtual_pipeline}" if p.virtual_pipeline else ""))
    if p.context > 1:
        words.append(f"CP{p.context}")
    return " x ".join([*words, f"DP{plan.world_size // model_ranks(plan.run)}"])


def page(plan: Plan, shape, from_index: bool = False) -> str:
    """The whole page."""
    return "\n".join([
        *_head(plan), "", *_memory(plan), "", *_time(plan), "", *_cost(plan), "", *_notes(plan, shape, from_index)
    ])  # fmt: skip


def _head(plan: Plan) -> list[str]:
    run, c = plan.run, plan.run.cluster
    nodes = -(-plan.world_size // (c.gpus_per_node or 1))
    batches = micro_batches(run, plan.world_size)
    return [
        f"stage {run.stage.name}: {plan.world_size} x {c.gpu} on {nodes} nodes of {c.name}, {layout_name(plan)}, "
        f"{run.precision.recipe}",
        f"{run.stage.train_steps:,} steps of {run.stage.global_batch_size} "
        f"{'packs' if run.stage.packing else 'rows'} of {run.stage.seq_length:,} tokens, {batches} micro-batches a rank"
        + (f", bubble {plan.step.bubble:.1%}" if run.parallel.pipeline > 1 else ""),
    ]


def _memory(plan: Plan) -> list[str]:
    card = plan.run.cluster.gpu_memory_gb
    lines = [f"{'GiB of a rank':<15} {'parameters':>14} {'weights':>8} {'gradients':>9} {'optimizer':>9} "
             f"{'activations':>11} {'card needs':>10} {'card has':>8}"]  # fmt: skip
    for memory in plan.stages:
        parts = (memory.weights + memory.copies, memory.gradients, memory.optimizer, memory.activations)
        numbers = [f"{part / GIB:.1f}" for part in parts]
        needs = card_gib(memory.total)
        mark = "" if not card or needs <= card else "  DOES NOT FIT"
        name = f"stage {memory.stage.index} ({memory.stage.layers} layers)"
        lines.append(f"{name:<15} {memory.parameters:>14,.0f} {numbers[0]:>8} {numbers[1]:>9} {numbers[2]:>9} "
                     f"{numbers[3]:>11} {needs:>10.1f} {card:>8.1f}{mark}")  # fmt: skip
    worst = max(plan.stages, key=lambda memory: memory.total)
    kept = ", ".join(f"{name} {size / GIB:.1f}" for name, size in worst.parts.items() if size > GIB / 20)
    lines.append(f"activations of stage {worst.stage.index}: {kept}")
    return lines


def _time(plan: Plan) -> list[str]:
    step, batches = plan.step, micro_batches(plan.run, plan.world_size)
    lines = [
        f"{'a step of the busiest rank':<28} {'seconds':>8} {'share':>6}    {'TFLOP of a step':<22} {'all GPUs':>9}"
    ]
    replicas = plan.world_size // model_ranks(plan.run) * batches
    work = [(_PART_NAMES.get(name, name), part.needed * replicas / 1e12) for name, part in step.work.items()]
    seconds = [(name, value) for name, value in step.parts.items() if value / step.seconds >= 0.0005]
    for i in range(max(len(seconds), len(work))):
        left = f"{_PART_NAMES.get(seconds[i][0], seconds[i][0]):<28} {seconds[i][1]:>8.3f} " \
               f"{seconds[i][1] / step.seconds:>6.1%}" if i < len(seconds) else " " * 44  # fmt: skip
        right = f"{work[i][0]:<22} {work[i][1]:>9,.0f}" if i < len(work) else ""
        lines.append(f"{left}    {right}".rstrip())
    lines.append(f"{'together':<28} {step.seconds:>8.3f}           "
                 f"{'together':<22} {sum(value for _, value in work):>9,.0f}")  # fmt: skip
    sent = ", ".join(f"{t.name} {t.sent / 1e9:.1f}{'' if t.inside else ' between nodes'}" for t in step.traffic)
    return [*lines, f"GB sent by a rank in a step: {sent or 'none'}"]


def _cost(plan: Plan) -> list[str]:
    per_gpu = plan.step.tokens_per_second / plan.world_size
    lines = [
        f"{per_gpu:,.0f} tokens/s/GPU, MFU {plan.step.mfu:.1%} (of bf16's peak), {plan.hours:.1f} hours = "
        f"{plan.hours / 24:.2f} days, {plan.gpu_hours:,.0f} GPU-hours, {plan.energy_mwh:.2f} MWh"
    ]
    if plan.reference:
        hours = plan.reference / 3600
        lines.append(f"of that the reference, once: {hours:.2f} hours, {hours * plan.world_size:,.0f} GPU-hours")
    return lines


def _notes(plan: Plan, shape, from_index: bool) -> list[str]:
    run, linear = plan.run, rates.FP8_LINEAR if "fp8" in plan.run.precision.recipe else rates.BF16_LINEAR
    worst = worst_of(run, shape.geometry)
    return [
        "assumed:",
        *(f"  {line}" for line in assumptions(run, plan.rows, from_index)),
        f"  memory: the worst micro-batch, {worst.tiles} tiles of images of {worst.image[0]} x {worst.image[1]}; "
        f"{RESERVED_GIB} GiB for CUDA and NCCL, 4 % lost to gaps",
        f"  rates: matrices {linear:.0%} of peak, attention {rates.ATTENTION:.0%}, tower {rates.TOWER:.0%}, NVLink "
        f"{rates.NVLINK:.0%}, network {rates.NETWORK:.0%}, {rates.RESTARTS:.0%} of the time for restarts (rates.py)",
        "  nothing here was measured on this cluster: published steps agree within 15 % (docs/planning.md)",
    ]
