"""What one token is: its letter for the grammar rules, and the entries of the lexicon that it can be. Cached by token."""

import re

from data_prep.common.variety_lexicon import Entry, entries, rows

PAIRS = ("vocabulary", "spelling", "expressions")
#: words, with their hyphens, and the marks that end a sentence or a clause.
TOKEN = re.compile(r"\w+(?:[-‑'’]\w+)*-?|[.!?…:\n]|[,;()—–]")
_END, _CLAUSE = frozenset(".!?…:\n"), frozenset(",;()—–")
_NO_GERUND = frozenset(
    "quando segundo mundo fundo profundo comando bando brando contrabando mando lindo vindo bem-vindo benvindo findo "
    "fernando orlando armando bernardo nando raimundo edmundo sigismundo facundo fecundo segundo-o imundo oriundo "
    "rotundo vagabundo moribundo redondo estrondo hediondo dividendo adendo reverendo memorando doutorando mestrando "
    "graduando formando educando infindo tremendo horrendo estupendo nefando venerando demando quendo rolando ando "
    "osvaldo hollando agendo landó hindo indo-europeu oitavado submundo gerundo multiplicando operando radicando "
    "minuendo subtraendo somando dividindo-o licenciando orçando examinando crescendo* legendo londo".split()
)
_NO_INFINITIVE = frozenset(
    "lugar par mar lar bar ar olhar milhar militar familiar popular particular regular escolar solar polar similar "
    "celular auxiliar angular circular nuclear secular titular singular vulgar exemplar peculiar espetacular dólar "
    "açúcar pilar altar colar azar jantar poder prazer dever mulher qualquer quer sequer ser-lhe talher colher éter "
    "caráter líder poster super hiper inter inferior superior anterior posterior interior exterior maior menor melhor "
    "pior senhor valor amor cor dor favor setor motor autor fator calor rumor humor terror horror elixir ir-se "
    "subsolar molecular muscular vascular cardiovascular preliminar disciplinar elementar parlamentar alimentar "
    "complementar hospitalar domiciliar universitar avatar radar hangar bazar malar molar pulsar quasar esgar "
    "gibraltar oscar jaguar néctar alquer ester heber".split()
)
_INFINITIVE = re.compile(r"^\w{2,}[aei]r$|^(ir|pôr|compor|propor|dispor|expor|supor|impor|ver|ler|ser|ter|dar)$")
_INFINITIVE_CLITIC = re.compile(r"^\w+(ar|er|ir|or)-(me|te|se|lhe|lhes|nos)$|^\w+[áêêíô]-l[oa]s?$|^\w*i-l[oa]s?$")
_CLITIC = re.compile(r"-(?:me|te|se|lhe|lhes|nos|[lnm]?[oa]s?|lhos?|lhas?|ei|á|ão|ia|iam)$")
MOST = 200_000  # tokens kept; the cache starts anew at that many


class Words(dict):
    """token (lower case) -> letter of its class. `entries_of` has the tokens that some entry is anchored on."""

    def __init__(self):
        super().__init__()
        self.entries_of: dict[str, tuple[Entry, ...]] = {}
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

    def __missing__(self, token: str) -> str:
        if len(self) >= MOST:
            self.clear()
            self.entries_of.clear()
        found = self._find(token)
        if found:
            self.entries_of[token] = found
        self[token] = letter = self._letter(token)
        return letter

    def _find(self, token: str) -> tuple[Entry, ...]:
        found = list(self._words.get(token, ()))
        found += [entry for entry in self._stems if token.startswith(entry.tokens[entry.anchor][:-1])]
        host = _CLITIC.sub("", token)
        if host != token and len(host) > 2:  # contacte-nos; guardá-lo
            stem = host[:-1] + {"á": "ar", "ê": "er", "i": "ir"}.get(host[-1], host[-1])
            found += [e for word in {host, stem} for e in self._words.get(word, ()) if len(e.tokens) == 1 and word != token]
        if not any(len(entry.tokens) == 1 and entry.guard is None for entry in found):
            found += self._spelt(token, found)
        return tuple(found)

    def _spelt(self, token: str, found: list[Entry]) -> list[Entry]:
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
        return "H" if host != token else "N"
