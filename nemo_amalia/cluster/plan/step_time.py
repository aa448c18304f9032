"""Seconds of a step: the work at the rates of rates.py, the pipeline's bubble, and communication that nothing hides."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_amalia.cluster.plan import rates
from nemo_amalia.cluster.plan.activations import Keeping, layer_bytes
from nemo_amalia.cluster.plan.communication import Traffic, traffic_of
from nemo_amalia.cluster.plan.flops import Rows, Work, work_of
from nemo_amalia.cluster.plan.memory import GRADIENT, OPTIMIZER, StageMemory, parameters_of, uses_fp8, value_bytes
from nemo_amalia.cluster.plan.shape import ModelShape, TransformerShape
from nemo_amalia.cluster.plan.stages import Stage, bubble, micro_batches
from nemo_amalia.config.derived import model_ranks
from nemo_amalia.config.schema import RunConfig

GB = 1e9


@dataclass(frozen=True)
class Prediction:
    """Of a step. parts: seconds by what takes them, adding up to ``seconds``. traffic: of the busiest rank."""

    seconds: float
    parts: dict[str, float]
    work: dict[str, Work]
    traffic: list[Traffic]
    bubble: float
    tokens: float
    mfu: float

    @property
    def tokens_per_second(self) -> float:
        """Of the whole job, padding left out."""
        return self.tokens / self.seconds


def predict(
    run: RunConfig, shape: ModelShape, world_size: int, stages: list[StageMemory], rows: Rows, own: dict[str, int],
    forward_only: bool = False,
) -> Prediction:  # fmt: skip
    """One step of the run. own: parameters of a tensor-parallel rank by part. forward_only: as `amalia reference`."""
    work = work_of(run, shape, rows)
    if forward_only:
        work = {name: Work(part.forward, 0.0) for name, part in work.items()}
    batches = micro_batches(run, world_size)
    by_stage = [_compute(run, shape, memory.stage, rows, work, forward_only) for memory in stages]
    slowest = max(range(len(stages)), key=lambda i: sum(by_stage[i].values()))
    stage = stages[slowest].stage
    parts = {name: seconds * batches for name, seconds in by_stage[slowest].items()}
    compute = sum(parts.values())
    idle = bubble(run, world_size)
    parts["bubble"] = compute * idle
    traffic = traffic_of(run, shape, stage, rows, parameters_of(stage, own, run.stage.trainable),
                         parameters_of(stage, own), world_size)  # fmt: skip
    if forward_only:
        traffic = [t for t in traffic if t.name not in ("gradients", "weights")]
    last = sum(by_stage[slowest].values())  # of one micro-batch: what gradients and weights can hide under
    parts |= _exposed(run, traffic, last)
    if not forward_only:
        parts["optimizer"] = _optimizer(run, stages[slowest])
    parts["overhead"] = sum(parts.values()) * rates.STEP_OVERHEAD
    seconds = sum(parts.values())
    needed = sum(part.needed for part in work.values()) * batches * world_size / model_ranks(run)
    tokens = rows.tokens * rows.filled * batches * world_size / model_ranks(run)
    mfu = needed / seconds / world_size / (run.cluster.bf16_tflops * 1e12)
    return Prediction(seconds, parts, work, traffic, idle, tokens, mfu)


def _compute(
    run: RunConfig, shape: ModelShape, stage: Stage, rows: Rows, work: dict[str, Work], forward_only: bool
) -> dict[str, float]:
    """Seconds of one micro-batch on a rank of ``stage``, by part."""
    p, c, d = run.parallel, run.cluster, shape.decoder
    bf16, fp8 = c.bf16_tflops * 1e12, c.fp8_tflops * 1e12
    ranks, share = p.tensor * p.context, stage.layers / d.layers
    slow = (run.precision.first_layers_bf16 + run.precision.last_layers_bf16) / d.layers
    linear = bf16 * rates.BF16_LINEAR
    if uses_fp8(run):
        linear = 1 / ((1 - slow) / (fp8 * rates.FP8_LINEAR) + slow / linear)
    attention = work["attention"]
    scores = attention.forward * (1 + attention.backward * rates.ATTENTION_BACKWARD + attention.again)
    found = {
        "decoder": work["decoder"].done * share / ranks / linear,
        "attention": scores * share / ranks / (bf16 * rates.ATTENTION),
        "elementwise": _elementwise(run, d, stage.layers, rows, forward_only),
    }
    if stage.first and "tower" in work:
        copies = p.tensor if run.model.tower_data_parallel else 1
        encode = (work["tower"].done + work["connector"].done) / copies
        found["tower"] = encode / (bf16 * rates.TOWER)
    if stage.last:
        found["output"] = work["output"].done / ranks / (bf16 * rates.BF16_LINEAR)
        found["output"] += rows.tokens / p.context * shape.vocabulary / p.tensor * 16 / _bandwidth(run)
    return found


def _elementwise(run: RunConfig, decoder: TransformerShape, layers: int, rows: Rows, forward_only: bool) -> float:
    p, value = run.parallel, value_bytes(run)
    how = Keeping(p.tensor, p.sequence, value, value, "none", 1)
    kept = rows.tokens / p.context * layers * layer_bytes(decoder, how)
    passes = rates.MEMORY_PASSES_FP8 if uses_fp8(run) else rates.MEMORY_PASSES
    passes *= 4 / 3 if p.recompute == "full" else 1
    return kept * (passes / 3 if forward_only else passes) / _bandwidth(run)


def _bandwidth(run: RunConfig) -> float:
    return run.cluster.memory_bandwidth_gb_s * GB * rates.MEMORY_BANDWIDTH


def _exposed(run: RunConfig, traffic: list[Traffic], micro_batch: float) -> dict[str, float]:
    """Seconds of communication that computation does not hide, by kind."""
    p, c, found = run.parallel, run.cluster, {}
    for item in traffic:
        rate = c.nvlink_gb_s * rates.NVLINK if item.inside else c.network_gb_s * rates.NETWORK
        seconds = item.sent / (rate * GB)
        if item.name == "tensor" and p.overlap_tensor:
            seconds *= 1 - rates.TENSOR_HIDDEN
        if item.name == "context":  # the ring's next keys travel under the attention of the last ones
            seconds *= 1 - rates.TENSOR_HIDDEN
        window = {"gradients": 2 / 3 * p.overlap_grad_reduce, "weights": 1 / 3 * p.overlap_param_gather}
        hidden = min(seconds, micro_batch * window.get(item.name, 0.0)) * rates.GRADIENT_HIDDEN
        found[f"{item.name} (network)"] = seconds - hidden
    return found


def _optimizer(run: RunConfig, memory: StageMemory) -> float:
    """Reads and writes of the rank's shard: gradient, master weight and moments, both ways."""
    shard = memory.optimizer / OPTIMIZER
    return shard * (GRADIENT + 2 * OPTIMIZER + value_bytes(run)) / _bandwidth(run)
