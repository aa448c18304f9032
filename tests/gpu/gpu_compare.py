"""How far runs in low precision may lie apart, and how their distance is taken. Plain numbers, tested without a GPU."""

import math

Run = list[tuple[float, float]]  # (loss, gradient norm) of each step
HALF_ULP = 2**-9  # of bf16, relative: what one rounding can do to a number


def distance(run: Run, reference: Run) -> tuple[float, float]:
    """Relative distance of losses and of gradient norms, as the root of the mean square over the steps."""
    assert len(run) == len(reference) > 0
    found = []
    for column in (0, 1):
        parts = [((a[column] - b[column]) / b[column]) ** 2 for a, b in zip(run, reference, strict=True)]
        found.append(math.sqrt(sum(parts) / len(parts)))
    return tuple(found)


def allowed(one_gpu: Run, fp32: Run) -> tuple[float, float]:
    """How far from fp32 a layout in bf16 may lie: twice as far as one GPU in bf16 does, and one rounding at least.

    Two layouts round other sums, so each is a draw of its own from the same spread: twice is the room for that. One GPU
    may be close by luck, hence the least.
    """
    return tuple(max(2 * spread, HALF_ULP) for spread in distance(one_gpu, fp32))


def final_loss(run: Run, last: int = 5) -> float:
    """Mean of the last steps' losses."""
    return sum(loss for loss, _ in run[-last:]) / len(run[-last:])
