"""Where the texts are from: a folder of the user's, or what the Unicode CLDR says about territories, in pt-PT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.engine import Sample
from nemo_amalia.utils.errors import DataError

WEEK = {0: "na segunda-feira", 4: "na sexta-feira", 5: "no sábado", 6: "no domingo"}  # the days that CLDR has


def read_texts(*, path: str | None, licence: str | None, language: str) -> Iterator[Sample]:
    """The .txt files below `path` in the order of their names, or without a path a text for each territory.

    Raises DataError on a path without texts or without a licence, and on a file that is not UTF-8.
    """
    if path is None:
        yield from territories()
        return
    files = sorted(Path(path).rglob("*.txt"))
    if not files or not licence:
        fault = f"{path} has no .txt file" if not files else f"the texts in {path} have no licence"
        raise DataError(f"{fault}: give texts.path=FOLDER texts.licence=NAME, as in texts.licence=CC0-1.0")
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 ({error.reason}): convert it, or move it away") from error
        yield {"text": text, "source": str(file.relative_to(path)), "licence": licence, "language": language}


def territories() -> Iterator[Sample]:
    """A text of up to five sentences about each territory of CLDR whose language and currency it knows."""
    import babel
    from babel import Locale, UnknownLocaleError
    from babel.languages import get_official_languages
    from babel.numbers import get_territory_currencies

    portuguese = Locale("pt", "PT")
    for code in sorted(portuguese.territories):
        languages = get_official_languages(code, de_facto=True)
        currencies = get_territory_currencies(code)
        names = [portuguese.languages[one] for one in languages if one in portuguese.languages]
        if not names or not currencies or currencies[0] not in portuguese.currencies:
            continue
        try:
            week = Locale.parse(f"{languages[0]}_{code}").first_week_day
        except (UnknownLocaleError, ValueError):
            week = None
        source = f"Unicode CLDR in Babel {babel.__version__}, territory {code}"
        text = _text(
            code, portuguese.territories[code], names, portuguese.currencies[currencies[0]], currencies[0], week
        )
        yield {"text": text, "source": source, "licence": "Unicode-3.0", "language": "pt-PT"}


def _text(code: str, name: str, languages: list[str], currency: str, currency_code: str, week: int | None) -> str:
    listed = [f"o {language}" for language in languages]
    if len(listed) == 1:
        spoken = f"A língua oficial é {listed[0]}."
    else:
        spoken = f"As línguas oficiais são {', '.join(listed[:-1])} e {listed[-1]}."
    sentences = [
        f"Nas tabelas internacionais, «{name}» tem o código {code}.",
        spoken,
        f"A moeda em uso chama-se «{currency}».",
        f"O código dessa moeda é {currency_code}.",
    ]
    if week in WEEK:
        sentences.append(f"Nos calendários, a semana começa {WEEK[week]}.")
    return " ".join(sentences)
