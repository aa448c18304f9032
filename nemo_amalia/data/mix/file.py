"""conf/mix/<stage>.yaml -> Mix: the data sets of a stage, as the paper lists them, and how they are to be mixed."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_amalia.config.compose import CONF
from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.data.shards.write import KEY
from nemo_amalia.utils.errors import ConfigError
from nemo_amalia.utils.files import quoted
from nemo_amalia.utils.text import first_line, one_line

UNITS = ("samples", "tokens")
SHARES = ("realised", "paper")


@dataclass(frozen=True)
class Source:
    """One data set. samples: the paper's number. repeat: how much more than its share, 1.0 for just that.

    max_repeat: how often a run may see each of its samples; None: the mix's. make: the command that makes its folder,
    with {name}, {folder} and {source}; "": the mix's.
    """

    name: str
    category: str
    samples: int
    source: str
    licence: str
    synthetic: bool
    languages: list[str] = field(default_factory=list)
    repeat: float = 1.0
    max_repeat: float | None = None
    make: str = ""


@dataclass(frozen=True)
class Make:
    """Commands for sources without one of their own; {name}, {folder} and {source} are filled in."""

    downloaded: str
    synthetic: str


@dataclass(frozen=True)
class TextEstimate:
    """Text tokens = characters / characters_per_token + turns * tokens_per_turn, where nobody counted."""

    characters_per_token: float
    tokens_per_turn: float


@dataclass(frozen=True)
class Images:
    """What an image costs: see image_geometry.ImageGeometry. tiling: as the stage has it."""

    tile: int
    patch: int
    max_tiles: int
    tiling: bool

    def geometry(self) -> ImageGeometry:
        """The paper's grids, for counting tokens."""
        return ImageGeometry(self.tile, self.patch, grids_up_to(self.max_tiles, self.tile))


@dataclass(frozen=True)
class Paper:
    """What the paper says of the whole stage; None where it says nothing."""

    text_tokens: float | None = None


@dataclass(frozen=True)
class Mix:
    """A stage's data. weights: of UNITS; shares: of SHARES (mix.plan has the arithmetic). categories: the paper's
    percentages of samples, as printed.
    """

    weights: str
    shares: str
    max_repeat: float
    make: Make
    text: TextEstimate
    images: Images
    categories: dict[str, float]
    sources: list[Source]
    paper: Paper = field(default_factory=Paper)

    def __post_init__(self) -> None:
        for key, value, known in (("weights", self.weights, UNITS), ("shares", self.shares, SHARES)):
            if value not in known:
                raise ConfigError(f"{key} is {value!r}: expected {' or '.join(known)}")
        names = [source.name for source in self.sources]
        for source in self.sources:
            if not KEY.fullmatch(source.name) or names.count(source.name) > 1:
                fault = "is there twice" if names.count(source.name) > 1 else "must be letters, digits, - and _"
                raise ConfigError(f"source {source.name!r} {fault}: the name is that of its folder")
            if source.category not in self.categories:
                known = ", ".join(self.categories)
                raise ConfigError(f"source {source.name} has category {source.category!r}: expected one of {known}")
            if min(source.samples, source.repeat, self.limit(source)) <= 0:
                raise ConfigError(
                    f"source {source.name} has samples {source.samples}, repeat {source.repeat}, max_repeat "
                    f"{self.limit(source)}: all must be positive; leave the source out instead"
                )

    def limit(self, source: Source) -> float:
        """How often a run may see each sample of a source."""
        return self.max_repeat if source.max_repeat is None else source.max_repeat

    def command(self, source: Source, folder: Path) -> str:
        """What makes the folder of a source."""
        template = source.make or (self.make.synthetic if source.synthetic else self.make.downloaded)
        for word, value in (("name", source.name), ("folder", folder), ("source", source.source)):
            template = template.replace("{" + word + "}", str(value))
        return template


NESTED = {"make": Make, "text": TextEstimate, "images": Images, "paper": Paper}


def mix_path(stage: str) -> Path:
    """conf/mix/<stage>.yaml. Raises ConfigError naming the stages there are."""
    stages = sorted(path.stem for path in (CONF / "mix").glob("*.yaml"))
    if stage not in stages:
        near = difflib.get_close_matches(stage, stages, n=1, cutoff=0.3)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"stage={stage}: conf/mix has {', '.join(stages)}{hint}")
    return CONF / "mix" / f"{stage}.yaml"


def read_mix(path: str | Path, **changes: Any) -> Mix:
    """A mix file, with top-level values replaced by `changes`. Raises ConfigError in one line on what does not fit."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise ConfigError(f"the mix file {quoted(path)} cannot be read ({error.strerror}): check the path") from error
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"the mix file {quoted(path)} is not valid YAML ({one_line(error, 300)}): correct it"
        ) from error
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"the mix file {quoted(path)} has a value that cannot be resolved ({first_line(error)}): expected plain "
            "values, or ${KEY} of a key of the file"
        ) from error
    content = _checked(content, Mix, str(path)) | changes
    for key, kind in NESTED.items():
        if key in content:
            content[key] = kind(**_checked(content[key], kind, f"{key} of {path}"))
    if not isinstance(content["sources"], list) or not content["sources"]:
        raise ConfigError(f"sources of {path} is {type(content['sources']).__name__}: expected a list of data sets")
    sources = [_checked(each, Source, f"source {number} of {path}") for number, each in enumerate(content["sources"])]
    content["sources"] = [Source(**each) for each in sources]
    try:
        return Mix(**content)
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"a value of {quoted(path)} has the wrong type ({first_line(error)}): compare it with conf/mix/sft.yaml"
        ) from error


def _checked(content: Any, kind: type, where: str) -> dict[str, Any]:
    """The keys of a mapping are those of a dataclass, and none is missing."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where} is {content!r:.60}: expected keys and values")
    fields = dataclasses.fields(kind)
    known = [item.name for item in fields]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown key {key!r} in {where}: {hint}")
    free = dataclasses.MISSING
    needed = [item.name for item in fields if item.default is free and item.default_factory is free]
    missing = [name for name in needed if name not in content]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    return dict(content)
