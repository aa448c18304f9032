"""Steps that others have published, and what the planner says of them: its calibration.

Megatron Bridge's rows are of its performance summary (docs/performance-summary.md, and the archive beside it): DGX
H100, sequence 8,192, FP8 current scaling; containers 25.11 (first and second row of a model) and 26.02 (batches of 256
and 1,536). Llama 3 405B in bf16 is table 4 of arXiv 2407.21783: 430 TFLOPS a GPU on 8,192.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_amalia.cluster.plan.flops import Rows
from nemo_amalia.cluster.plan.memory import memory_of, split_parameters
from nemo_amalia.cluster.plan.shape import ModelShape, TransformerShape
from nemo_amalia.cluster.plan.step_time import predict
from nemo_amalia.config.compose import compose

SEQUENCE = 8192
SIZES = {  # layers, width, heads, key-value heads, MLP width, vocabulary: the models' config.json
    "Llama 3 8B": (32, 4096, 32, 8, 14336, 128256),
    "Llama 3 70B": (80, 8192, 64, 8, 28672, 128256),
    "Llama 3.1 405B": (126, 16384, 128, 8, 53248, 128256),
}


@dataclass(frozen=True)
class Row:
    """A published step. tokens: a second and GPU."""

    model: str
    gpus: int
    batch: int
    precision: str
    tokens: float
    tensor: int
    pipeline: int
    context: int
    virtual: int | None = None
    last_layers: int | None = None


ROWS = (
    Row("Llama 3 8B", 8, 128, "fp8_current", 14451, tensor=1, pipeline=1, context=1),
    Row("Llama 3 70B", 64, 128, "fp8_current", 1602, tensor=4, pipeline=8, context=1, virtual=5),
    Row("Llama 3 70B", 64, 256, "fp8_current", 1621, tensor=4, pipeline=8, context=1, virtual=5),
    Row("Llama 3.1 405B", 1024, 512, "fp8_current", 292, tensor=8, pipeline=8, context=2, virtual=8),
    Row("Llama 3.1 405B", 1024, 1536, "fp8_current", 311, tensor=8, pipeline=8, context=2, virtual=8),
    # 430 TFLOPS / 2.52 a token
    Row("Llama 3.1 405B", 8192, 2048, "bf16", 170.5, tensor=8, pipeline=16, context=1, virtual=8),
)


def shape_of_row(row: Row) -> ModelShape:
    """A decoder alone. 126 layers do not cut into equal chunks: two empty ones are counted, as the recipes leave
    embedding and output layer a place of their own."""
    layers, width, heads, groups, ffn, vocabulary = SIZES[row.model]
    cuts = row.pipeline * (row.virtual or 1)
    layers = -(-layers // cuts) * cuts
    size = width // heads
    decoder = TransformerShape(layers, width, heads, width, size * groups, ffn, gated=True, biases=False)
    return ModelShape(decoder, None, vocabulary, False, patches=0, patch_values=0, geometry=None)


def predicted_tokens(row: Row) -> float:
    """Tokens a second and GPU that `amalia plan` gives for a published row."""
    run = compose([
        "run_dir=-", "data.path=-", "model.checkpoint=-", "stage=sft", "cluster=dgx_h100",
        f"precision={row.precision}", "precision.first_layers_bf16=0", "precision.last_layers_bf16=0",
        f"parallel.tensor={row.tensor}", f"parallel.pipeline={row.pipeline}", f"parallel.context={row.context}",
        f"parallel.virtual_pipeline={row.virtual or 'null'}", f"parallel.sequence={row.tensor > 1}",
        f"parallel.overlap_tensor={row.tensor > 1}", "parallel.overlap_grad_reduce=true",
        "parallel.overlap_param_gather=true", f"stage.global_batch_size={row.batch}", f"stage.seq_length={SEQUENCE}",
        "stage.trainable=[decoder]",
    ])  # fmt: skip
    shape = shape_of_row(row)
    rows = Rows(SEQUENCE, [SEQUENCE], 0.0)
    own = split_parameters(shape, row.tensor)
    found = predict(run, shape, row.gpus, memory_of(run, shape, row.gpus, own), rows, own)
    return found.tokens_per_second / row.gpus


def calibration() -> list[tuple[Row, float, float]]:
    """(row, predicted, predicted / published - 1) of every row."""
    return [(row, found := predicted_tokens(row), found / row.tokens - 1) for row in ROWS]
