"""The pipeline that a configuration names."""

from __future__ import annotations

import importlib
from typing import Any

from data_prep.common.engine.steps import Stage, stages_of


def load_stages(conf: Any) -> tuple[Any, list[Stage]]:
    """(module, stages) of the pipeline that conf.pipeline names, or data_prep.NAME.pipeline. Raises ValueError where
    there is none.
    """
    name = conf.get("pipeline") or f"data_prep.{conf.name}.pipeline"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not name.startswith(error.name):
            raise ValueError(
                f"pipeline {name} needs {error.name}: install the extra, `pip install -e .[data-prep]`"
            ) from error
        raise ValueError(f"there is no module {name}: a pipeline is a file with pipeline(conf)") from error
    return module, stages_of(module.pipeline(conf))
