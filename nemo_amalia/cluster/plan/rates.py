"""How fast a GPU really is: shares of the vendor's peak, each with its source. Change a number here and nowhere else.

Calibrated on Megatron Bridge's published rows (docs/performance-summary.md of the 25.11 container, DGX H100, FP8
current scaling; cluster/plan/calibration.py): one number, FP8, was chosen for three models at once, the rest are usual.
tests/unit/cluster/plan/test_calibration.py tests the result. No published row checks bf16 at this size, or the tower.
"""

from __future__ import annotations

# Share of the peak that matrix products reach.
FP8_LINEAR = 0.58  # chosen on the rows of published.py; quantising is counted in MEMORY_PASSES_FP8
BF16_LINEAR = 0.65  # of 989: 640 TFLOPS; chosen on the bf16 row of published.py, the one there is
ATTENTION = 0.48  # of bf16: FlashAttention 3's causal forward and backward at 8K to 16K (arXiv 2407.08608, figs. 5, 6)
ATTENTION_BACKWARD = 2.5 / 2.0  # flash attention computes the scores again in the backward
TOWER = 0.45  # of bf16: matrices of 1,152, attention of 576 patches; ours, and unmeasured
# Elementwise work (norms, RoPE, SwiGLU, residuals, casts): how often what a layer keeps is read or written in a step.
MEMORY_PASSES = 5.0
MEMORY_PASSES_FP8 = 6.0
MEMORY_BANDWIDTH = 0.85  # of the peak
# Communication: share of the link's rate, and what of it hides under computation.
NVLINK = 0.75  # nccl-tests' bus bandwidth of large all-gathers against 450 GB/s
NETWORK = 0.85
TENSOR_HIDDEN = 0.6  # with Transformer Engine's overlap (user buffers); ours
GRADIENT_HIDDEN = 0.9  # of what fits under the last backward and the first forward; ours
STEP_OVERHEAD = 0.02  # of the step: launches, the data loader's hand-over, logging, stragglers; ours
RESTARTS = 0.03  # of a job's time: start-up, checkpoints, requeues; ours
