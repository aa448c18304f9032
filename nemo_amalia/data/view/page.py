"""The page of `amalia data view`: one HTML file, nothing from the network, no script."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_amalia.data.encoding.hf_folder import Assets
from nemo_amalia.data.packing.algorithms import fill
from nemo_amalia.data.view.charts import Histogram, PackList, Shares, histogram, pack_list, shares
from nemo_amalia.data.view.pictures import Picture
from nemo_amalia.data.view.read import Seen
from nemo_amalia.data.view.template_checks import Finding
from nemo_amalia.data.view.tokens import TokenReader
from nemo_amalia.utils.page import percent, render

TEMPLATE = Path(__file__).parent / "templates" / "view.html.j2"
MAX_FAULTS, MAX_LINKS = 100, 6


@dataclass(frozen=True)
class View:
    """All that the page says.

    shown: samples with their pictures. packs: indices into the usable samples. left_out: images of shown samples that
    are not drawn. again: draws of a blend that gave a sample that was there already.
    """

    source: str
    assets: Assets
    seen: list[Seen]
    shown: list[tuple[Seen, list[Picture]]]
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

    @property
    def fill(self) -> float:
        """Tokens of all packs over their capacity, in 0..1."""
        return fill(self.packs, [len(one.tokens) for one in self.usable], self.capacity)


def page(view: View) -> str:
    """Render the page; every number in it is computed from the samples."""
    text, level = verdict(view.findings)
    reader = TokenReader(view.assets.chat)
    return render(
        TEMPLATE,
        view=view,
        name=Path(view.source).name,
        verdict=text,
        level=level,
        totals=_totals(view),
        findings=_findings(view),
        chat_template=view.assets.chat.tokenizer.chat_template,
        shares_of=_shares(view),
        histograms=_histograms(view),
        packs=_packs(view),
        samples=[_sample(view, number, *shown, reader) for number, shown in enumerate(view.shown)],
        reasons=Counter(one.reason for one in view.faulty).most_common(),
        max_faults=MAX_FAULTS,
    )


def verdict(findings: list[Finding]) -> tuple[str, str]:
    """(in words, level) of all findings together."""
    wrong, look = (sum(one.level == level for one in findings) for level in ("wrong", "look"))
    text = f"{wrong} thing{'s are' if wrong != 1 else ' is'} wrong" if wrong else "nothing is wrong"
    if look:
        text += f", {look} to look at"
    return text, "wrong" if wrong else "look" if look else "fine"


def _totals(view: View) -> list[tuple[str, str]]:
    samples = [one.tokens for one in view.usable]
    tokens = sum(map(len, samples))
    learned = sum(int(sample.loss_mask.sum()) for sample in samples)
    images = sum(int((sample.input_ids == view.assets.chat.image_token_id).sum()) for sample in samples)
    return [
        ("tokens", f"{tokens:,}"),
        ("of them learned", percent(learned / tokens) if tokens else "none"),
        ("of them images", percent(images / tokens) if tokens else "none"),
        ("images", f"{sum(len(sample.images) for sample in samples):,}"),
        ("tiles", f"{sum(_tiles(view)):,}"),
        ("pack fill", percent(view.fill)),
    ]


def _tiles(view: View) -> list[int]:
    return [
        view.assets.geometry.num_tiles(width, height, one.tokens.tiling)
        for one in view.usable
        for width, height in one.tokens.image_sizes
    ]


def _findings(view: View) -> dict[str, list[dict[str, Any]]]:
    """What was found and what was not; each links to samples on the page as (number, key)."""
    places = {one.key: number for number, (one, _) in enumerate(view.shown)}
    found: dict[str, list[dict[str, Any]]] = {"bad": [], "fine": []}
    for finding in view.findings:
        links = [(places[key], key) for key in finding.keys if key in places][:MAX_LINKS]
        row = {"level": finding.level, "text": finding.text, "links": links}
        found["fine" if finding.level == "fine" else "bad"].append(row)
    return found


def _shares(view: View) -> list[Shares]:
    known = [one.conversation for one in view.seen if one.conversation is not None]
    if not known:
        return []
    made = [shares("Languages", [one.language for one in known]), shares("Sources", [one.source for one in known])]
    folders = [Path(one.folder).name for one in view.seen]
    return [*made, shares("Folders", folders)] if len(set(folders)) > 1 else made


def _histograms(view: View) -> list[Histogram]:
    samples = [one.tokens for one in view.usable]
    return [
        histogram("Length of a sample in tokens", [len(sample) for sample in samples]),
        histogram("Tiles of an image, thumbnail included", _tiles(view)),
        histogram("Images of a sample", [len(sample.images) for sample in samples]),
    ]


def _packs(view: View) -> PackList:
    usable = view.usable
    lengths, sources = [len(one.tokens) for one in usable], [one.conversation.source for one in usable]
    return pack_list(view.packs, lengths, [one.key for one in usable], sources, view.capacity)


def _sample(view: View, number: int, seen: Seen, pictures: list[Picture], reader: TokenReader) -> dict[str, Any]:
    sample, conversation = seen.tokens, seen.conversation
    facts = [conversation.source, conversation.language]
    if len({one.folder for one in view.seen}) > 1 or view.source.endswith((".yaml", ".yml")):
        facts.append(f"from {Path(seen.folder).name}")
    facts.append(f"{len(sample):,} tokens, {int(sample.loss_mask.sum()):,} learned")
    pieces, rest = reader.shown(sample)
    return {
        "number": number,
        "key": seen.key,
        "language": conversation.language,
        "facts": [fact for fact in facts if fact],
        "marks": [one for one in view.findings if one.level != "fine" and seen.key in one.keys],
        "pictures": pictures,
        "not_drawn": len(sample.images) - len(pictures),
        "pieces": pieces,
        "rest": rest,
    }
