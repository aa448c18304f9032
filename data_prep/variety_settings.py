"""conf/data_prep/variety.yaml -> the pt-PT filter of nemo_amalia/variety."""

from __future__ import annotations

from typing import Any

from data_prep.config import CONF
from nemo_amalia.variety.classifier import Classifier, VarietyFilter
from nemo_amalia.variety.evidence import SCALE, Scale


def variety_settings() -> Any:
    """Return the filter's settings as a DictConfig: `lexical` from the package's scale, the rest from conf/."""
    from omegaconf import OmegaConf

    return OmegaConf.merge({"lexical": OmegaConf.load(SCALE)}, OmegaConf.load(CONF / "variety.yaml"))


def variety_filter(conf: Any = None) -> VarietyFilter:
    """Build the filter from `conf`, a configuration of the form of `variety_settings`, which is the default.

    Raises:
        UserError: for an agreement rule that does not exist, or one that needs a classifier where none is named.
    """
    from omegaconf import OmegaConf

    conf = variety_settings() if conf is None else conf
    chosen = OmegaConf.to_container(conf.classifier, resolve=True)
    classifier = Classifier(**chosen) if chosen["model"] and conf.agreement.rule != "lexical" else None
    return VarietyFilter(Scale.of(conf.lexical), classifier, **OmegaConf.to_container(conf.agreement, resolve=True))
