"""The report's part on stage 3: how much pt-BR the answers about held-out drawings hold before and after it."""

from html import escape
from pathlib import Path

from demo import score, variety
from demo.run_folder import RunInputs

EXAMPLES = 8


def percent(share: float, digits: int = 1) -> str:
    """A share in 0..1 as "12.3 %", with a space that does not break."""
    return f"{share * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def figures(inputs: RunInputs) -> dict[str, tuple[float, float]]:
    """Share of pt-BR forms, drawings named right in either variety, scene questions: (after stage 2, after stage 3)."""
    both = (inputs.sft, inputs.after)
    forms = [variety.forms(records) for records in both]
    named = [score.Tally(*variety.named(records)) for records in both]
    scenes = [score.scene_accuracy(records) for records in both]
    return {
        "pt-BR forms in answers about drawings": (forms[0].brazilian_share, forms[1].brazilian_share),
        "drawings named right, in either variety": (named[0].share, named[1].share),
        "scene questions answered right": (scenes[0].share, scenes[1].share),
    }


def marked(text: str) -> str:
    """An answer as HTML, with its forms marked by variety."""
    parts, at = [], 0
    for begin, end, name in variety.spans(text):
        kind = "br" if name == "pt-BR" else "pt"
        parts.append(f'{escape(text[at:begin])}<mark class="{kind}">{escape(text[begin:end])}</mark>')
        at = end
    return "".join(parts) + escape(text[at:])


def tiles(inputs: RunInputs) -> str:
    """The three figures, stage 2's and stage 3's."""
    return "\n".join(
        f'<div><dt>{escape(name)}</dt><dd>{percent(was)} <span aria-label="to">→</span> {percent(now)}</dd></div>'
        for name, (was, now) in figures(inputs).items()
    )


def note(inputs: RunInputs) -> str:
    """How much was asked, and what the share leaves out."""
    was, now = variety.forms(inputs.sft), variety.forms(inputs.after)
    return (
        f"{now.answers} questions about held-out drawings: no training picture has that thing in that colour, place "
        f"and size. Stage 2 learned from answers of both varieties; stage 3 preferred the pt-PT answer. A form is "
        f"a word or construction that the other variety writes otherwise: {was.brazilian} of "
        f"{was.brazilian + was.portuguese} were pt-BR after stage 2, {now.brazilian} of "
        f"{now.brazilian + now.portuguese} after stage 3; answers without any: {was.neither} and {now.neither}."
    )


def examples(inputs: RunInputs) -> str:
    """The first drawings, as they come: stage 2's answer struck out, stage 3's below it."""
    pairs = [(s, a) for s, a in zip(inputs.sft, inputs.after, strict=True) if a["source"] == variety.DRAWINGS]
    return "\n".join(_example(sft, after) for sft, after in pairs[:EXAMPLES])


def _example(sft: dict, after: dict) -> str:
    picture = escape(Path(after["image"]).name)
    alt = f"Held-out drawing; the pt-PT answer is “{escape(after['answer'])}”"
    return (
        f'<figure class="drawing"><img src="images/{picture}" alt="{alt}" loading="lazy"><figcaption lang="pt">'
        f'<span class="question">{escape(after["question"])}</span>'
        f"<del>{marked(sft['prediction']) or '(nothing)'}</del><ins>{marked(after['prediction']) or '(nothing)'}</ins>"
        "</figcaption></figure>"
    )
