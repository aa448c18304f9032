"""Font families by name (conf/data_prep/fonts.yaml): where their files lie, and which characters they have."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data_prep.config import settings
from nemo_amalia.utils.errors import ConfigError

STYLES = ("regular", "bold", "italic", "bold_italic")


@dataclass(frozen=True, slots=True)
class Family:
    """kind: serif, sans, mono or hand. files: style -> file name. package: the Debian package ("": carried)."""

    name: str
    kind: str
    files: dict[str, str]
    package: str = ""

    def path(self, style: str = "regular") -> str:
        """The file of a style, or of the nearest that the family has (a family may lack italics).

        Raises ConfigError when it is not installed, with the package to install.
        """
        nearest = {"bold_italic": ("bold_italic", "bold", "regular")}.get(style, (style, "regular"))
        name = next(self.files[s] for s in nearest if s in self.files)
        found = installed_files().get(name)
        if found is None:
            mend = f"`apt-get install {self.package}`" if self.package else "install the pinned matplotlib"
            raise ConfigError(
                f"font family {self.name} is not installed ({name} is in none of the font folders): {mend}, "
                "or take a font set without it (conf/data_prep/fonts.yaml)"
            )
        return found


@lru_cache(maxsize=1)
def installed_files() -> dict[str, str]:
    """File name -> path: matplotlib's fonts first, then `folders` of fonts.yaml and those of $AMALIA_FONTS."""
    import matplotlib

    folders = [Path(matplotlib.get_data_path()) / "fonts" / "ttf"]
    folders += [Path(f).expanduser() for f in settings("fonts")["folders"]]
    folders += [Path(f) for f in os.environ.get("AMALIA_FONTS", "").split(os.pathsep) if f]
    found: dict[str, str] = {}
    for folder in folders:
        for root, inner, names in os.walk(folder):
            inner.sort()
            for name in sorted(names):
                if name.lower().endswith((".ttf", ".otf")):
                    found.setdefault(name, os.path.join(root, name))
    return found


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, Family]:
    entries = settings("fonts")["families"]
    return {
        name: Family(name, entry["kind"], dict(entry["files"]), entry.get("package", ""))
        for name, entry in entries.items()
    }


def family(name: str) -> Family:
    """A family by name. Raises ConfigError naming those there are."""
    try:
        return _catalogue()[name]
    except KeyError:
        raise ConfigError(
            f"unknown font family {name!r}: conf/data_prep/fonts.yaml has {', '.join(_catalogue())}"
        ) from None


def families(chosen: str | Iterable[str], kinds: Iterable[str] = ("serif", "sans", "mono", "hand")) -> list[Family]:
    """The families of a set ("carried", "debian") or of a list of names, of the kinds asked for, in a fixed order.

    Every file is looked up, so that a missing package is said before the first page: a seed means the same page on
    two machines only if both have the same fonts. Raises ConfigError on an unknown set or family, on one that is not
    installed, and when no family is left.
    """
    sets = settings("fonts")["sets"]
    if isinstance(chosen, str) and chosen not in sets:
        raise ConfigError(f"unknown font set {chosen!r}: conf/data_prep/fonts.yaml has {', '.join(sets)}")
    names = sets[chosen] if isinstance(chosen, str) else list(chosen)
    kept = [entry for entry in map(family, names) if entry.kind in set(kinds)]
    if not kept:
        raise ConfigError(f"no font of kind {', '.join(kinds)} among {', '.join(names)}: add a family")
    for entry in kept:
        for style in STYLES:
            entry.path(style)
    return kept


@lru_cache(maxsize=256)
def coverage(path: str) -> frozenset[int]:
    """Code points for which a font file has a glyph."""
    from fontTools.ttLib import TTFont  # 0.1 s, and only when a page is made

    with TTFont(path, lazy=True) as font:
        return frozenset(font.getBestCmap())


def missing_characters(text: str, path: str) -> str:
    """The characters of a text that a font file cannot draw, each once, white space aside."""
    have = coverage(path)
    return "".join(sorted({c for c in text if ord(c) not in have and not c.isspace()}))
