"""Values of conf/data_prep/NAME.yaml, read once a process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

CONF = Path(__file__).resolve().parents[2] / "conf" / "data_prep"


@cache
def settings(name: str) -> dict[str, Any]:
    """The content of conf/data_prep/NAME.yaml as lists and dicts. Raises ValueError naming the files there are."""
    import yaml

    path = CONF / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"no conf/data_prep/{name}.yaml: there are {', '.join(sorted(p.stem for p in CONF.glob('*.yaml')))}"
        )
    return yaml.safe_load(path.read_text(encoding="utf-8"))
