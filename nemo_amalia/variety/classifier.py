"""The second opinion on the variety, a transformers text classifier, and what is kept when it and the evidence differ.

The paper (section 5.1) removes pt-BR with lexical and classifier-based filters, the classifier being its reference 44
(Sousa et al. 2025). transformers is imported with the first text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nemo_amalia.variety.evidence import BRAZILIAN, PORTUGUESE, Scale, Verdict, evidence
from nemo_amalia.variety.hub import cached_folder, refusal

RULES = ("either", "both", "lexical", "classifier")


class Opinion(NamedTuple):
    """What the classifier says: pt-PT or pt-BR, and its probability."""

    variety: str
    confidence: float


class Decision(NamedTuple):
    """Whether a text is kept; `reason` names the filter that dropped it, for the counts."""

    keep: bool
    reason: str
    verdict: Verdict
    opinion: Opinion | None


@dataclass
class Classifier:
    """A transformers sequence classifier of Portuguese varieties.

    model: name on the hub or folder. labels: the model's label -> variety. Texts longer than max_length tokens are cut.
    """

    model: str
    labels: dict[str, str]
    revision: str | None = None
    device: str = "cpu"
    batch_size: int = 32
    max_length: int = 512
    _pipeline: Any = field(default=None, repr=False)

    def opinions(self, texts: Sequence[str]) -> list[Opinion]:
        """One for each text, in order. EnvironmentProblem where the model cannot be loaded or has other labels."""
        if not texts:
            return []
        pipeline = self._pipeline = self._pipeline or self._load()
        answers = pipeline(
            list(texts), batch_size=self.batch_size, truncation=True, max_length=self.max_length, top_k=None
        )
        best = [max(answer, key=lambda label: label["score"]) for answer in answers]
        return [Opinion(self.labels[answer["label"]], float(answer["score"])) for answer in best]

    def _load(self) -> Any:
        loaded = self._loaded()
        from nemo_amalia.utils.errors import EnvironmentProblem

        missing = sorted(set(loaded.model.config.id2label.values()) - set(self.labels))
        if missing:
            raise EnvironmentProblem(
                f"{self.model} has the labels {missing}, classifier.labels has {sorted(self.labels)}: map them"
            )
        return loaded

    def _loaded(self) -> Any:
        """From the folder, the cache, or the hub where it answers."""
        from nemo_amalia.utils.errors import EnvironmentProblem

        own = Path(self.model).is_dir()
        try:
            if here := self.model if own else cached_folder(self.model, self.revision):
                try:
                    return self._pipeline_of(here)
                except (OSError, ValueError):  # a download that was cut short
                    if own:
                        raise
            if said := refusal(self.model, self.revision):
                raise OSError(said)
            return self._pipeline_of(self.model, self.revision)
        except (OSError, ValueError) as error:
            said = str(error).split("\n")[0]
            raise EnvironmentProblem(
                f"classifier.model={self.model!r} cannot be loaded ({said}): give a folder, as `hf download NAME "
                "--local-dir FOLDER` makes it where there is a network, or classifier.model=null"
            ) from None

    def _pipeline_of(self, place: str, revision: str | None = None) -> Any:
        from transformers import pipeline

        return pipeline("text-classification", place, revision=revision, device=self.device)


@dataclass
class VarietyFilter:
    """Keeps pt-PT. `rule`: who can drop a text.

    either: the evidence or the classifier, as in the paper; both: only together; lexical, classifier: that one.
    The classifier is not asked about a text whose score is beyond `certain`, and counts from `confidence`.
    `unknown`: whether a text that neither can tell is kept.
    """

    scale: Scale
    classifier: Classifier | None = None
    rule: str = "either"
    certain: float = 6.0
    confidence: float = 0.9
    unknown: bool = True

    def __post_init__(self) -> None:
        from nemo_amalia.utils.errors import ConfigError

        if self.rule not in RULES:
            raise ConfigError(f"agreement.rule={self.rule!r}, expected one of {', '.join(RULES)}")
        if self.rule in ("both", "classifier") and self.classifier is None:
            raise ConfigError(f"agreement.rule={self.rule} needs classifier.model: name one, or use rule=lexical")

    def decide(self, texts: Sequence[str]) -> list[Decision]:
        """A decision for each text, in order; the classifier sees the uncertain ones in batches."""
        verdicts = [evidence(text, self.scale) for text in texts]
        asked = [i for i, v in enumerate(verdicts) if self.classifier and self._is_asked(v)]
        answers = self.classifier.opinions([texts[i] for i in asked]) if asked else []
        opinions = dict(zip(asked, answers, strict=True))
        return [self._decide(verdict, opinions.get(i)) for i, verdict in enumerate(verdicts)]

    def _is_asked(self, verdict: Verdict) -> bool:
        return self.rule == "classifier" or abs(verdict.score) < self.certain

    def _decide(self, verdict: Verdict, opinion: Opinion | None) -> Decision:
        lexical = verdict.variety == BRAZILIAN
        second = opinion is not None and opinion.variety == BRAZILIAN and opinion.confidence >= self.confidence
        if self.rule == "both":
            # Evidence beyond `certain` stands alone: the classifier was not asked.
            dropped = lexical and (second or opinion is None)
        elif self.rule == "classifier":
            dropped = second
        else:
            dropped = lexical or (self.rule == "either" and second)
        if dropped:
            return Decision(False, "variety_lexical" if lexical else "variety_classifier", verdict, opinion)
        known = verdict.variety == PORTUGUESE or opinion is not None and opinion.confidence >= self.confidence
        if not self.unknown and not known:
            return Decision(False, "variety_unknown", verdict, opinion)
        return Decision(True, "", verdict, opinion)
