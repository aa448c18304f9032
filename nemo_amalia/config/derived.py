"""Values that follow from the settings: computed here, in one place, and never configured."""

import math

from nemo_amalia.config.precision import BLOCK, USERBUFFERS_BLOCK, fp8_scaling
from nemo_amalia.config.schema import RunConfig


def segment_multiple(run: RunConfig) -> int:
    """Tokens that a segment of a pack is padded to a multiple of: context parallelism cuts it into 2 x CP chunks."""
    return 2 * run.parallel.context if run.parallel.context > 1 else 1


def model_ranks(run: RunConfig) -> int:
    """Ranks that hold one copy of the model."""
    return run.parallel.tensor * run.parallel.pipeline * run.parallel.context


def sequence_parts(run: RunConfig) -> int:
    """Ranks that a row's tokens are shared out over before a matrix product."""
    p = run.parallel
    return p.context * (p.tensor if p.sequence else 1)


def row_multiple(run: RunConfig) -> int:
    """Tokens that stage.seq_length must be a multiple of; a pack is always padded to stage.seq_length.

    Context parallelism cuts a row into 2 x CP chunks, sequence parallelism each rank's part into TP; of what is left
    FP8 takes whole blocks.
    """
    p, scaling = run.parallel, fp8_scaling(run.precision)
    block = 1 if scaling is None else BLOCK[scaling]
    if scaling == "mxfp8" and p.overlap_tensor:
        block = USERBUFFERS_BLOCK
    zigzag = (2 * p.context if p.context > 1 else 1) * (p.tensor if p.sequence else 1)
    return zigzag if scaling is None else math.lcm(zigzag, block * sequence_parts(run))
