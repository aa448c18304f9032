"""``python -m benchmarks.variety [figures|speed|fit]``: how well and how fast the lexical part tells pt-BR from pt-PT.

figures: precision, recall and false alarms on each corpus of benchmarks/variety_corpora.py, one text at a time and five
neighbours together. speed: texts a second of one process. fit: the weights of conf/data_prep/variety.yaml from
development text. Corpora that are not in the repository: --bosque FILE, --help-pages FOLDER, --fit-on FILE.tsv.
"""

import argparse
from collections import Counter
from pathlib import Path

from benchmarks.measure import cpu_seconds, table
from benchmarks.variety_corpora import Labelled, bosque, iterate, ours, together
from nemo_amalia.variety.evidence import BRAZILIAN, PORTUGUESE, STRENGTHS, evidence

HEAD = ("corpus", "texts pt-PT", "pt-BR", "precision", "recall", "false alarms", "pt-PT found", "pt-BR taken for pt-PT")
ROUNDS = 60


def figures(items: list[Labelled]) -> dict[str, float]:
    """Of "this is pt-BR": precision, recall, and false alarms, the share of pt-PT texts called pt-BR."""
    found = Counter((item.variety, evidence(item.text).variety) for item in items)
    total = Counter(item.variety for item in items)
    called = sum(found[variety, BRAZILIAN] for variety in total)

    def share(truth: str, said: str) -> float:
        return found[truth, said] / total[truth] if total[truth] else 0.0

    return {
        "pt-PT": total[PORTUGUESE],
        "pt-BR": total[BRAZILIAN],
        "both": total["both"],
        "precision": found[BRAZILIAN, BRAZILIAN] / called if called else 0.0,
        "recall": share(BRAZILIAN, BRAZILIAN),
        "false_alarms": share(PORTUGUESE, BRAZILIAN),
        "portuguese": share(PORTUGUESE, PORTUGUESE),
        "mistaken": share(BRAZILIAN, PORTUGUESE),
        "both_brazilian": share("both", BRAZILIAN),
    }


def row(name: str, items: list[Labelled]) -> tuple[str, ...]:
    """A line of the table."""
    f = figures(items)
    return (
        name,
        f"{f['pt-PT']:,}",
        f"{f['pt-BR']:,}",
        f"{f['precision']:.3f}",
        f"{f['recall']:.3f}",
        f"{f['false_alarms']:.2%}",
        f"{f['portuguese']:.3f}",
        f"{f['mistaken']:.2%}",
    )


def show_figures(args) -> None:
    """The table, a text and five neighbours at a time, and sentences of both varieties that were called pt-BR."""
    rows = []
    for name, items in iterate(args):
        rows.append(row(name, items))
        if "ours" not in name and "authors" not in name and (joined := together(items, 5)):
            rows.append(row("  five together", joined))
        if both := figures(items)["both"]:
            print(f"{name}: {figures(items)['both_brazilian']:.1%} of {both} sentences of both varieties called pt-BR")
    print(table(HEAD, rows))


def show_speed(args) -> None:
    """Texts a second, by CPU time of this process, on our sentences; the first round fills the cache of words.

    Short rounds: on a machine that others use the best of them is the nearest to a core of one's own.
    """
    texts = [item.text for part in ("dev", "heldout", "natural_dev", "natural_heldout") for item in ours(part)]
    plain = [text for text in texts if not evidence(text).evidence]
    rows = []
    for name, some in (("all sentences", texts), ("those without evidence", plain)):
        seconds = sorted(cpu_seconds(lambda some=some: [evidence(text) for text in some]) for _ in range(ROUNDS))
        median, best = seconds[ROUNDS // 2], seconds[0]
        rows.append((name, f"{len(some):,}", f"{len(some) / median:,.0f}", f"{len(some) / best:,.0f}"))
    print(table(("sentences a second a core", "sentences", "median", "best"), rows))
    print(f"{sum(map(len, texts)) / len(texts):.0f} characters a sentence; {ROUNDS} rounds")


def show_fit(args) -> None:
    """Logistic regression on counts of evidence by variety and strength, the two varieties weighing the same."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    items = [item for item in ours("dev") + ours("natural_dev") if item.variety != "both"]
    for file in args.fit_on:
        items += bosque(file)
    keys = [(variety, strength) for variety in (PORTUGUESE, BRAZILIAN) for strength in STRENGTHS]
    counts = np.zeros((len(items), len(keys)))
    for line, item in zip(counts, items, strict=True):
        found = evidence(item.text).evidence
        for piece in {(e.rule, item.text[e.start : e.end].lower()): e for e in found}.values():
            line[keys.index((piece.variety, piece.strength))] += 1 if piece.variety == BRAZILIAN else -1
    truth = np.array([item.variety == BRAZILIAN for item in items])
    fitted = LogisticRegression(class_weight="balanced").fit(counts, truth)
    rows = [
        (variety, strength, f"{weight:.2f}", f"{int(used)}")
        for (variety, strength), weight, used in zip(keys, fitted.coef_[0], (counts != 0).sum(0), strict=True)
    ]
    print(table(("variety", "strength", "weight", "texts with it"), rows))
    print(f"{len(items):,} texts")


def main() -> None:
    """Entry of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="figures", choices=("figures", "speed", "fit"))
    parser.add_argument("--bosque", type=Path, help="CoNLL-U file of UD_Portuguese-Bosque")
    parser.add_argument("--help-pages", type=Path, help="the help folder of libreoffice-help-pt and -pt-br, unpacked")
    parser.add_argument("--every", type=int, default=4, help="one help page in so many")
    parser.add_argument("--fit-on", type=Path, nargs="*", default=[], help="more development text, CoNLL-U of Bosque")
    args = parser.parse_args()
    {"figures": show_figures, "speed": show_speed, "fit": show_fit}[args.what](args)


if __name__ == "__main__":
    main()
