"""What one token is: its letter for the grammar rules, and the entries that it can be.

Cached by token, and above that by chunk, what stands between two spaces: a word with its punctuation. A text then costs
`str.split` and a look-up a chunk; splitting it into tokens by expression takes five times as long.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, chain
from typing import NamedTuple

from nemo_amalia.variety.lexicon import Entry, entries, rows

PAIRS = ("vocabulary", "spelling", "expressions")
#: words, with their hyphens, and the marks that end a sentence or a clause.
TOKEN = re.compile(r"\w[\w‑-]*|[.!?…:\n,;()—–]")
#: a dash begins speech: "— Me dá um copo."
_END, _CLAUSE = frozenset(".!?…:\n—–"), frozenset(",;()")
_NO_GERUND = frozenset(
    "quando segundo mundo fundo profundo comando bando brando contrabando mando lindo vindo bem-vindo benvindo findo "
    "fernando orlando armando bernardo nando raimundo edmundo sigismundo facundo fecundo segundo-o imundo oriundo "
    "rotundo vagabundo moribundo redondo estrondo hediondo dividendo adendo reverendo memorando doutorando mestrando "
    "graduando formando educando infindo tremendo horrendo estupendo nefando venerando demando quendo rolando ando "
    "osvaldo hollando agendo landó hindo indo-europeu oitavado submundo gerundo multiplicando operando radicando "
    "minuendo subtraendo somando dividindo-o licenciando orçando examinando crescendo* legendo londo".split()
)
_NO_INFINITIVE = frozenset(
    "lugar par mar lar bar ar milhar militar familiar popular particular regular escolar solar polar similar "
    "celular auxiliar angular circular nuclear secular titular singular vulgar exemplar peculiar espetacular dólar "
    "açúcar pilar altar colar azar prazer mulher qualquer quer sequer ser-lhe talher colher éter "
    "caráter líder poster super hiper inter inferior superior anterior posterior interior exterior maior menor melhor "
    "pior senhor valor amor cor dor favor setor motor autor fator calor rumor humor terror horror elixir ir-se "
    "subsolar molecular muscular vascular cardiovascular preliminar disciplinar elementar parlamentar alimentar "
    "complementar hospitalar domiciliar universitar avatar radar hangar bazar malar molar pulsar quasar esgar "
    "gibraltar oscar jaguar néctar alquer ester heber".split()
)
_INFINITIVE = re.compile(r"^\w{2,}[aei]r$|^(ir|pôr|compor|propor|dispor|expor|supor|impor|ver|ler|ser|ter|dar)$")
_INFINITIVE_CLITIC = re.compile(r"^\w+(ar|er|ir|or)-(me|te|se|lhe|lhes|nos)$|^\w+[áêêíô]-l[oa]s?$|^\w*i-l[oa]s?$")
#: third person
_PRETERITE = re.compile(r"^\w{3,}(?:ou|[aei]ram|iu)$|^\w{2,}(?:ec|end|rr|v|b|met|olh)eu$")
_NO_PRETERITE = frozenset(("moscou", "caribou", "bijou"))
_CLITIC = re.compile(r"-(?:me|te|se|lhe|lhes|nos|[lnm]?[oa]s?|lhos?|lhas?|ei|á|ão|ia|iam)$")
MOST = 200_000  # chunks kept; the cache starts anew at that many, between two texts


class Found(NamedTuple):
    """An entry anchored on a token, and the words that must be next to it ("" for any): most phrases fail there."""

    entry: Entry
    previous: str
    following: str

    @classmethod
    def of(cls, entry: Entry) -> "Found":
        """With the neighbours of the anchor, beginnings of words (with *) left to the full comparison."""
        words = ("", *entry.tokens, "")[entry.anchor : entry.anchor + 3]
        return cls(entry, *("" if word.endswith("*") else word for word in (words[0], words[2])))


class Places:
    """Where the tokens of a text are, for the few that are asked for."""

    __slots__ = ("anchors", "before", "first", "spans_of", "texts", "tokens_of")

    def __init__(self, texts: list[str], parts: list[str], words: "Words"):
        self.texts, self.tokens_of, self.spans_of, self.anchors = texts, words.tokens_of, words.spans_of, words.anchors
        self.first = list(accumulate(map(len, parts), initial=0))  # index of each chunk's first token
        self.before = list(accumulate(map(len, texts), initial=0))  # characters before it, spaces left out

    def tokens(self) -> list[str]:
        """All of them."""
        return list(chain.from_iterable(map(self.tokens_of.__getitem__, self.texts)))

    def span(self, index: int) -> tuple[int, int]:
        """Characters [start, end) of token `index` of the text."""
        at = bisect_right(self.first, index) - 1  # the last of those that begin there has tokens
        start, end = self.spans_of[self.texts[at]][index - self.first[at]]
        before = self.before[at] + at
        return before + start, before + end


def _spans(chunk: str, tokens: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where tokens are: what TOKEN skips begins no token, so the next occurrence is the token's own."""
    end = 0
    for token in tokens:
        start = chunk.find(token, end)
        end = start + len(token)
        yield start, end


class Words(dict):
    """chunk (lower case) -> the letters of its tokens' classes.

    `tokens_of`, `spans_of`: the tokens of a chunk and their characters [start, end) in it. `anchors`: of chunks with
    entries, the index of each token that some are anchored on, and these.
    """

    def __init__(self):
        super().__init__()
        self.tokens_of: dict[str, tuple[str, ...]] = {}
        self.spans_of: dict[str, tuple[tuple[int, int], ...]] = {}
        self.anchors: dict[str, tuple[tuple[int, tuple[Found, ...]], ...]] = {}
        self._known: dict[str, tuple[str, tuple[Found, ...]]] = {}
        self._words: dict[str, list[Entry]] = {}
        self._stems: list[Entry] = []
        for name in PAIRS:
            for entry in entries(name):
                self._file(entry)
        self._classes: dict[str, str] = {}
        for letter, words in rows("classes"):
            for word in words.split():
                self._classes.setdefault(word, letter)
        self._patterns = [
            (re.compile(pattern), re.compile(besides) if besides else None, name, variety, strength, explanation)
            for name, variety, strength, pattern, besides, explanation in rows("orthography")
        ]

    def _file(self, entry: Entry) -> None:
        anchor = entry.tokens[entry.anchor]
        if anchor.endswith("*"):
            self._stems.append(entry)
        else:
            self._words.setdefault(anchor, []).append(entry)

    def forget(self) -> None:
        """Empties the cache, between two texts: one text's chunks must stay together."""
        for cache in (self, self.tokens_of, self.spans_of, self.anchors, self._known):
            cache.clear()

    def __missing__(self, chunk: str) -> str:
        tokens = tuple(TOKEN.findall(chunk))
        known = [self.token(token) for token in tokens]
        hits = tuple((i, entries) for i, (_, entries) in enumerate(known) if entries)
        if hits:
            self.anchors[chunk] = hits
        self.tokens_of[chunk], self.spans_of[chunk] = tokens, tuple(_spans(chunk, tokens))
        self[chunk] = letters = "".join(letter for letter, _ in known)
        return letters

    def token(self, token: str) -> tuple[str, tuple[Found, ...]]:
        """The letter of a token and the entries anchored on it."""
        if token not in self._known:
            self._known[token] = self._letter(token), tuple(map(Found.of, self._find(token)))
        return self._known[token]

    def _find(self, token: str) -> tuple[Entry, ...]:
        found = list(self._words.get(token, ()))
        found += [entry for entry in self._stems if token.startswith(entry.tokens[entry.anchor][:-1])]
        host = _CLITIC.sub("", token)
        if host != token and len(host) > 2:  # contacte-nos; guardá-lo
            verb = host[:-1] + {"á": "ar", "ê": "er", "i": "ir"}.get(host[-1], host[-1])
            hosts = [entry for word in dict.fromkeys((host, verb)) for entry in self._words.get(word, ())]
            found += [entry for entry in hosts if len(entry.tokens) == 1]
        if not any(len(entry.tokens) == 1 and entry.guard is None for entry in found):
            found += self._spelt(token)
        return tuple(found)

    def _spelt(self, token: str) -> list[Entry]:
        """Entries from the patterns of orthography.tsv, for a word that no list has."""
        return [
            Entry(variety, strength, name, (token,), 0, f"{token}: {explanation}")
            for pattern, besides, name, variety, strength, explanation in self._patterns
            if pattern.search(token) and not (besides and besides.search(token))
        ]

    def _letter(self, token: str) -> str:
        if token in _END:
            return "."
        if token in _CLAUSE:
            return ","
        if token in self._classes:
            return self._classes[token]
        if _INFINITIVE_CLITIC.match(token):
            return "I"
        host = _CLITIC.sub("", token)
        if host.endswith("ndo") and len(host) > 4 and host not in _NO_GERUND:
            return "G"
        if token in _NO_INFINITIVE:
            return "N"
        if _INFINITIVE.match(token):
            return "I"
        if _PRETERITE.match(token) and token not in _NO_PRETERITE:
            return "Z"
        return "H" if host != token else "N"
