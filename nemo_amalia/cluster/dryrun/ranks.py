"""Which ranks of a world differ: one for each pipeline stage, at both ends of the other dimensions."""

from __future__ import annotations

from nemo_amalia.config.derived import model_ranks
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError

ALL_DISTINCT = "all-distinct"


def rank_at(run: RunConfig, world_size: int, *, tensor: int, context: int, data: int, pipeline: int) -> int:
    """Megatron's order of ranks: tensor, context, data, pipeline, the first one fastest (parallel_state.py)."""
    p = run.parallel
    replicas = world_size // model_ranks(run)
    return tensor + p.tensor * (context + p.context * (data + replicas * pipeline))


def distinct_ranks(run: RunConfig, world_size: int) -> list[int]:
    """The first and the last rank of every stage: of TP (its share of tiles and of the vocabulary), CP (its chunks of a
    segment) and DP (its shard of the optimizer); what lies between has what one of them has."""
    p = run.parallel
    last = {"tensor": p.tensor - 1, "context": p.context - 1, "data": world_size // model_ranks(run) - 1}
    found = []
    for stage in range(p.pipeline):
        for corner in (dict.fromkeys(last, 0), last):
            found.append(rank_at(run, world_size, pipeline=stage, **corner))
    return sorted(set(found))


def parse_ranks(text: str, run: RunConfig, world_size: int) -> list[int]:
    """``all-distinct``, or numbers with commas between. Raises ConfigError for anything else."""
    if text == ALL_DISTINCT:
        return distinct_ranks(run, world_size)
    try:
        ranks = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--rank {text!r}: expected a number, several as 0,64, or {ALL_DISTINCT}") from error
    outside = [rank for rank in ranks if not 0 <= rank < world_size]
    if outside:
        raise ConfigError(f"--rank {outside[0]} is not in a world of {world_size}: choose 0 to {world_size - 1}")
    return ranks
