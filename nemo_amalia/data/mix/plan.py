"""How often each data set of a mix is drawn, and what a pass of the mix holds: arithmetic on totals, no file is read.

The mix is an Energon blend: every draw picks a source by weight, so that repetitions are expected values (n draws of a
source scatter by about sqrt(n)). With blend=epochized they are counts of an epoch instead, and exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nemo_amalia.data.mix.file import Mix, Source
from nemo_amalia.data.shards.totals import Totals
from nemo_amalia.utils.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """One source that is there. Tokens are of the whole folder, once; None where it has no totals.

    available: samples in the folder. draws: samples that the run draws from it, expected. text_counted: by a tokenizer,
    not estimated. size_step: image tokens are exact where it is 1, else of sizes rounded to so many pixels. unfit,
    unreadable: samples that a scan found unfit, and images of no known size: training drops them.
    """

    source: Source
    available: int
    text_tokens: float | None
    image_tokens: float | None
    text_counted: bool = False
    size_step: int = 1
    unfit: int = 0
    unreadable: int = 0
    draws: float = 0.0

    @property
    def epochs(self) -> float:
        """How often the run sees each sample, expected."""
        return self.draws / self.available

    @property
    def tokens_per_sample(self) -> float | None:
        """Mean of text and image tokens; None where they are not known."""
        if self.text_tokens is None or self.image_tokens is None:
            return None
        return (self.text_tokens + self.image_tokens) / self.available


def measure(mix: Mix, source: Source, available: int, totals: Totals | None) -> Row:
    """A source's size in tokens, from its totals. available: samples, by Energon's index."""
    if totals is None:
        return Row(source, available, None, None)
    estimate = totals.characters / mix.text.characters_per_token + totals.turns * mix.text.tokens_per_turn
    counted = totals.text_tokens is not None
    return Row(
        source,
        available,
        float(totals.text_tokens if counted else estimate),
        float(totals.image_tokens(mix.images.geometry(), mix.images.tiling)),
        text_counted=counted,
        size_step=totals.sizes.step,
        unfit=sum(totals.refused.values()),
        unreadable=totals.unreadable_images,
    )


def plan(mix: Mix, rows: list[Row], passes: float = 1.0) -> list[Row]:
    """The same rows with their draws.

    n_i: samples available of source i. r_i: its repeat. t_i: its mean tokens a sample, text and images. A source's
    share is proportional to b_i * r_i, where b_i is n_i (shares: realised) or the paper's samples (shares: paper). One
    pass draws P = sum n_i * r_i samples, whatever the shares, and a run is `passes` of them.

    weights: samples: the shares are of samples:  draws_i = P * s_i,            s_i = b_i r_i / sum_j b_j r_j
    weights: tokens:  the shares are of tokens:   draws_i = P * (s_i / t_i) / sum_j (s_j / t_j)
    for Energon's weights count samples: a source of long samples is drawn more seldom, so that
    draws_i * t_i / sum_j draws_j * t_j = s_i. With weights=samples shares=realised, epochs_i = r_i a pass.

    Raises ConfigError, in one line, when a run would see the samples of a source more often than its max_repeat, and
    when tokens are asked for and a source has no totals.
    """
    if not passes > 0:
        raise ConfigError(f"passes is {passes}: it must be positive")
    parts = {}
    for row in rows:
        base = row.available if mix.shares == "realised" else row.source.samples
        parts[row.source.name] = base * row.source.repeat
    if mix.weights == "tokens":
        _need_tokens(rows)
        parts = {row.source.name: parts[row.source.name] / row.tokens_per_sample for row in rows}
    total = sum(row.available * row.source.repeat for row in rows) * passes
    whole = sum(parts.values())
    planned = [replace(row, draws=total * parts[row.source.name] / whole) for row in rows]
    _refuse_repetition(mix, planned)
    return planned


def _need_tokens(rows: list[Row]) -> None:
    without = [row.source.name for row in rows if not row.tokens_per_sample]
    if without:
        raise ConfigError(
            f"weights=tokens needs token totals, and {', '.join(without[:3])}{' ...' if len(without) > 3 else ''} "
            f"({len(without)} of {len(rows)} sources) have none: add scan=true once, or use weights=samples"
        )


def _refuse_repetition(mix: Mix, rows: list[Row]) -> None:
    over = [row for row in rows if row.epochs > mix.limit(row.source) * (1 + 1e-9)]
    if over:
        over.sort(key=lambda row: row.epochs / mix.limit(row.source), reverse=True)
        worst = [f"{r.source.name} {r.epochs:.4g} times (max_repeat {mix.limit(r.source):g})" for r in over[:3]]
        more = f" and {len(over) - 3} more" if len(over) > 3 else ""
        raise ConfigError(
            f"the run would see samples of {', '.join(worst)}{more}: lower repeat or passes, raise max_repeat, "
            "or add samples"
        )


def shares(rows: list[Row]) -> Mapping[str, tuple[float, float | None]]:
    """Name -> share of the draws, share of all tokens (None unless every source's are known), each 0 to 1."""
    draws = sum(row.draws for row in rows)
    known = all(row.tokens_per_sample is not None for row in rows)
    tokens = sum(row.draws * row.tokens_per_sample for row in rows) if known else 0.0
    return {
        row.source.name: (row.draws / draws, row.draws * row.tokens_per_sample / tokens if tokens else None)
        for row in rows
    }
