"""Values for the slots of the corpus: names, places, dates and amounts as they are written in Portugal."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from random import Random

from nemo_amalia.utils.errors import ConfigError

SLOT = re.compile(r"\{([^{}]+)\}")
PORTUGUESE = re.compile(r"[A-ZÀ-Ý](?:(?![kwy])[a-zà-ÿ])+")  # the lists have a few Bryans


@lru_cache(maxsize=1)
def lists() -> dict[str, list[str]]:
    """slots.yaml."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("slots.yaml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def names() -> dict[str, tuple[str, ...]]:
    """Words that stand for each other: first names by gender and last names (of Faker's pt_PT lists, about a hundred of
    each), cities.
    """
    from faker.providers.person.pt_PT import Provider

    found = {"first_male": Provider.first_names_male, "first_female": Provider.first_names_female}
    found["last"] = Provider.last_names
    kept = {kind: tuple(sorted({w for w in words if PORTUGUESE.fullmatch(w)})) for kind, words in found.items()}
    return kept | {"city": tuple(lists()["cities"])}


@lru_cache(maxsize=1)
def _places() -> tuple[str, ...]:
    from faker.providers.address.pt_PT import Provider

    return tuple(sorted(set(Provider.places)))


class Slots:
    """One passage's values: the same slot is the same value wherever it stands."""

    def __init__(self, rng: Random) -> None:
        self._rng, self._known = rng, {}

    def fill(self, text: str) -> str:
        """A text with its slots filled. Raises ConfigError on an unknown slot."""
        return SLOT.sub(lambda slot: self._value(slot[1]), text)

    def _value(self, name: str) -> str:
        if name not in self._known:
            kind = name.split(":")[0] if ":" in name else name.rstrip("0123456789")
            make = getattr(self, f"_{kind}", None)
            if make is None:
                raise ConfigError(f"unknown slot {{{name}}} in the corpus: see data_prep/pipelines/pt_ocr/slots.py")
            for _ in range(20):  # {cidade2} is another one than {cidade}
                value = make(name)
                if value not in self._known.values():
                    break
            self._known[name] = value
        return self._known[name]

    def _pick(self, list_name: str) -> str:
        return self._rng.choice(names()[list_name])

    def _n(self, name: str) -> str:
        low, high = name.split(":")[1].split("-")
        return str(self._rng.randint(int(low), int(high)))

    def _homem(self, _: str) -> str:
        return self._full("first_male")

    def _mulher(self, _: str) -> str:
        return self._full("first_female")

    def _full(self, first: str) -> str:
        last = self._rng.sample(names()["last"], self._rng.choice((1, 1, 2)))
        return " ".join([self._pick(first), *last])

    def _nome(self, _: str) -> str:
        return self._pick("first_male")

    def _nome_f(self, _: str) -> str:
        return self._pick("first_female")

    def _apelido(self, _: str) -> str:
        return self._pick("last")

    def _apelido_maiusculas(self, _: str) -> str:
        return self._value("apelido").upper()

    def _cidade(self, _: str) -> str:
        return self._pick("city")

    def _rua(self, _: str) -> str:
        return f"{self._rng.choice(lists()['streets'])} {self._rng.choice(_places())}"

    def _cp(self, _: str) -> str:
        return f"{self._rng.randint(1000, 8999)}-{self._rng.randint(1, 999):03d}"

    def _empresa(self, _: str) -> str:
        a, b = self._rng.sample(names()["last"], 2)
        return self._rng.choice(lists()["firms"]).format(a=a, b=b)

    def _mes(self, _: str) -> str:
        return self._rng.choice(lists()["months"])

    def _dia(self, _: str) -> str:
        return self._rng.choice(lists()["days"])

    def _ano(self, _: str) -> str:
        return str(self._rng.randint(2005, 2026))

    def _data(self, _: str) -> str:
        return f"{self._rng.randint(2, 28)} de {self._rng.choice(lists()['months'])} de {self._rng.randint(2018, 2026)}"

    def _hora(self, name: str) -> str:
        hours = (15, 21) if name.endswith("2") else (8, 12)
        return f"{self._rng.randint(*hours)}h{self._rng.choice(('00', '15', '30', '45', '10', '50'))}"

    def _valor(self, _: str) -> str:
        whole = self._rng.choice((self._rng.randint(25, 990), self._rng.randint(1000, 9800)))
        return f"{whole:,}".replace(",", ".") + f",{self._rng.choice(('00', '00', '50', '90', '45'))} €"

    def _preco(self, _: str) -> str:
        return f"{self._rng.randint(1, 18)},{self._rng.choice(('00', '20', '45', '50', '75', '90', '99'))} €"

    def _pct(self, _: str) -> str:
        return f"{self._rng.randint(1, 18)},{self._rng.randint(1, 9)} %"

    def _mil(self, _: str) -> str:
        return str(self._rng.randint(20, 140))

    def _milhoes(self, _: str) -> str:
        return f"{self._rng.randint(2, 48)},{self._rng.randint(1, 9)}"

    def _tel(self, _: str) -> str:
        first = self._rng.choice(("21", "22", "91", "93", "96"))
        return f"{first}{self._rng.randint(0, 9)} {self._rng.randint(0, 999):03d} {self._rng.randint(0, 999):03d}"

    def _email(self, _: str) -> str:
        plain = unicodedata.normalize("NFKD", ".".join(self._value("mulher").lower().split()))
        return "".join(c for c in plain if not unicodedata.combining(c)) + "@exemplo.pt"
