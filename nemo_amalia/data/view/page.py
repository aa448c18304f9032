"""The page of `amalia data view`: one HTML file, nothing from the network, no script."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from nemo_amalia.data.encoding.hf_folder import Assets
from nemo_amalia.data.packing.algorithms import fill
from nemo_amalia.data.view.charts import histogram, pack_bars, percent, shares
from nemo_amalia.data.view.read import Seen
from nemo_amalia.data.view.template_checks import Finding
from nemo_amalia.data.view.tokens import TokenWriter

TEMPLATES = Path(__file__).parent / "templates"
MAX_FAULTS, MAX_LINKS = 100, 6
_WORDS = {"wrong": "Wrong", "look": "Look", "fine": "Fine"}
_SIGNS = {"wrong": "✗", "look": "?", "fine": "✓"}


@dataclass(frozen=True)
class View:
    """All that the page says.

    shown: samples with their figures. packs: indices into the usable samples. left_out: images of shown samples that
    are not drawn. again: draws of a blend that gave a sample that was there already.
    """

    source: str
    assets: Assets
    seen: list[Seen]
    shown: list[tuple[Seen, list[str]]]
    findings: list[Finding]
    packs: list[list[int]]
    capacity: int
    algorithm: str
    left_out: int = 0
    again: int = 0

    @property
    def usable(self) -> list[Seen]:
        return [one for one in self.seen if one.tokens is not None]

    @property
    def faulty(self) -> list[Seen]:
        return [one for one in self.seen if one.tokens is None]


def page(view: View) -> str:
    """The whole page; every number in it is computed from the samples."""
    read = {name: (TEMPLATES / f"view.{name}").read_text(encoding="utf-8") for name in ("html", "css")}
    return Template(read["html"]).substitute(
        title=f"{escape(view.source)}: {verdict(view.findings)[0]}",
        css=read["css"],
        source=escape(Path(view.source).name),
        path=escape(view.source),
        lead=_lead(view),
        totals=_totals(view),
        findings=_findings(view),
        template=escape(view.assets.chat.tokenizer.chat_template),
        shares=_shares(view),
        histograms=_histograms(view),
        packing=_packing(view),
        samples="\n".join(
            _sample(view, *pair, writer) for writer in [TokenWriter(view.assets.chat)] for pair in view.shown
        ),
        shown=_shown_note(view),
        faults=_faults(view),
    )


def verdict(findings: list[Finding]) -> tuple[str, str]:
    """(in words, level) of all findings together."""
    wrong, look = (sum(one.level == level for one in findings) for level in ("wrong", "look"))
    text = f"{wrong} thing{'s are' if wrong != 1 else ' is'} wrong" if wrong else "nothing is wrong"
    if look:
        text += f", {look} to look at"
    return text, "wrong" if wrong else "look" if look else "fine"


def _lead(view: View) -> str:
    text, level = verdict(view.findings)
    faulty = len(view.faulty)
    again = f"{view.again:,} draws gave a sample again. " if view.again else ""
    return (
        f"{len(view.seen):,} samples read: {len(view.usable):,} that training takes and {faulty:,} that it refuses. "
        f"{again}"
        f'<strong class="verdict {level}">{text[0].upper()}{text[1:]}.</strong>'
    )


def _totals(view: View) -> str:
    samples = [one.tokens for one in view.usable]
    tokens = sum(map(len, samples))
    learned = sum(int(sample.loss_mask.sum()) for sample in samples)
    images = sum(int((sample.input_ids == view.assets.chat.image_token_id).sum()) for sample in samples)
    pairs = [
        ("tokens", f"{tokens:,}"),
        ("of them learned", percent(learned / tokens) if tokens else "none"),
        ("of them images", percent(images / tokens) if tokens else "none"),
        ("images", f"{sum(len(sample.images) for sample in samples):,}"),
        ("tiles", f"{sum(_tiles(view)):,}"),
        ("pack fill", percent(fill(view.packs, [len(sample) for sample in samples], view.capacity))),
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)


def _tiles(view: View) -> list[int]:
    return [
        view.assets.geometry.num_tiles(width, height, one.tokens.tiling)
        for one in view.usable
        for width, height in one.tokens.image_sizes
    ]


def _findings(view: View) -> str:
    places = {one.key: number for number, (one, _) in enumerate(view.shown)}
    rows = []
    for finding in view.findings:
        linked = [key for key in finding.keys if key in places][:MAX_LINKS]
        links = "".join(f'<a href="#s{places[key]}">{escape(key)}</a>' for key in linked)
        rows.append(
            f'<li class="{finding.level}"><span class="sign" aria-hidden="true">{_SIGNS[finding.level]}</span>'
            f'<div><p><span class="hidden">{_WORDS[finding.level]}: </span>{escape(finding.text)}</p>'
            f"{f'<p class=links>{links}</p>' if links else ''}</div></li>"
        )
    fine = [row for row, finding in zip(rows, view.findings, strict=True) if finding.level == "fine"]
    bad = rows[: len(rows) - len(fine)]
    opened = "" if bad else " open"
    summary = f"{len(fine)} check{'s' * (len(fine) != 1)} found nothing"
    more = f'<details{opened}><summary>{summary}</summary><ul class="checks small">{"".join(fine)}</ul></details>'
    return f'<ul class="checks">{"".join(bad)}</ul>{more if fine else ""}'


def _shares(view: View) -> str:
    known = [one for one in view.seen if one.conversation is not None]
    if not known:
        return ""
    out = [shares("Languages", [one.conversation.language for one in known])]
    out.append(shares("Sources", [one.conversation.source for one in known]))
    folders = [Path(one.folder).name for one in view.seen]
    if len(set(folders)) > 1:
        out.append(shares("Folders", folders))
    return "\n".join(out)


def _histograms(view: View) -> str:
    samples = [one.tokens for one in view.usable]
    return "\n".join(
        histogram(title, values)
        for title, values in (
            ("Length of a sample in tokens", [len(sample) for sample in samples]),
            ("Tiles of an image, thumbnail included", _tiles(view)),
            ("Images of a sample", [len(sample.images) for sample in samples]),
        )
    )


def _packing(view: View) -> str:
    usable = view.usable
    lengths = [len(one.tokens) for one in usable]
    packs = "1 pack" if len(view.packs) == 1 else f"{len(view.packs):,} packs"
    full = fill(view.packs, lengths, view.capacity)
    note = (
        f"What <code>{escape(view.algorithm)}</code> makes of these {len(usable):,} samples: {packs} "
        f"of {view.capacity:,} tokens, {percent(full)} full. A border is a segment's; "
        "attention does not cross it. Colours are those of the sources."
    )
    keys, sources = [one.key for one in usable], [one.conversation.source for one in usable]
    return f'<p class="note">{note}</p>{pack_bars(view.packs, lengths, keys, sources, view.capacity)}'


def _shown_note(view: View) -> str:
    text = f"{len(view.shown):,} of {len(view.usable):,}: those with findings first, then in turn from each source. "
    text += "Only their images were decoded."
    if view.left_out:
        text += f" {view.left_out:,} images of theirs are not drawn: the page would grow too large."
    return text


def _sample(view: View, seen: Seen, figures: list[str], writer: TokenWriter) -> str:
    number = next(i for i, (one, _) in enumerate(view.shown) if one is seen)
    sample, conversation = seen.tokens, seen.conversation
    facts = [conversation.source, conversation.language]
    if len({one.folder for one in view.seen}) > 1 or view.source.endswith((".yaml", ".yml")):
        facts.append(f"from {Path(seen.folder).name}")
    facts.append(f"{len(sample):,} tokens, {int(sample.loss_mask.sum()):,} learned")
    faults = [one for one in view.findings if one.level != "fine" and seen.key in one.keys]
    marks = "".join(f'<span class="mark {one.level}">{escape(one.name.replace("_", " "))}</span>' for one in faults)
    badges = "".join(f"<span>{escape(fact)}</span>" for fact in facts if fact)
    pictures = f'<div class="pictures">{"".join(figures)}</div>' if figures else ""
    if len(figures) < len(sample.images):
        pictures += f'<p class="quiet">{len(sample.images) - len(figures)} of its images are not drawn.</p>'
    return (
        f'<article class="sample{"" if figures else " bare"}" id="s{number}"><h3>{escape(seen.key)}</h3>'
        f'<p class="badges">{badges}{marks}</p><div class="body">{pictures}'
        f'<div class="tokens" tabindex="0" role="region" aria-label="Tokens of {escape(seen.key)}" '
        f'lang="{escape(conversation.language)}">{writer.html(sample)}</div></div></article>'
    )


def _faults(view: View) -> str:
    if not view.faulty:
        return '<p class="note">None of the samples that were read.</p>'
    reasons = Counter(one.reason for one in view.faulty)
    counts = ", ".join(f"{escape(reason)} {count:,}" for reason, count in reasons.most_common())
    rows = "".join(
        f'<tr><th scope="row">{escape(one.key)}</th><td><code>{escape(one.reason)}</code></td>'
        f"<td>{escape(one.message)}</td></tr>"
        for one in view.faulty[:MAX_FAULTS]
    )
    rest = len(view.faulty) - MAX_FAULTS
    more = f'<p class="quiet">{rest:,} more are counted and not listed.</p>' if rest > 0 else ""
    return (
        f'<p class="note">{len(view.faulty):,} of {len(view.seen):,}, by reason: {counts}.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Refused samples"><table><thead><tr>'
        '<th scope="col">Sample</th><th scope="col">Reason</th><th scope="col">What is wrong with it</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{more}"
    )
