"""The model that is planned: that of a checkpoint, or of a folder of conf/model that holds a config.json alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nemo_amalia.bridge.checkpoints import assets_of
from nemo_amalia.config.compose import CONF
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.utils.errors import ConfigError

if TYPE_CHECKING:
    from nemo_amalia.model.provider import AmaliaVLModelProvider

NO_PLACE = "-"  # stands for a folder that a plan does not read


def config_folder(run: RunConfig) -> Path:
    """The folder whose config.json describes the model. Raises ConfigError where there is none."""
    if run.model.checkpoint != NO_PLACE:
        return assets_of(run.model.checkpoint)
    name = run.model.architecture
    if name is None:
        raise ConfigError("no model to reckon with: add model.checkpoint=DIR, or model=amalia_9b for the paper's sizes")
    for folder in (CONF / "model" / name, Path(name)):
        if (folder / "config.json").is_file():
            return folder
    raise ConfigError(f"model.architecture {name} has no config.json: name a folder of conf/model, or an HF folder")


def hf_config(run: RunConfig) -> Any:
    """LlavaNextConfig of the planned model. Raises ConfigError for one that this trainer does not have."""
    from nemo_amalia.bridge.assets import load_config
    from nemo_amalia.bridge.supported import check_supported

    config = load_config(config_folder(run))
    check_supported(config)
    return config


def provider_of(run: RunConfig) -> AmaliaVLModelProvider:
    """What Megatron Bridge instantiates, by the bridge's own config map. Reads no weights; needs megatron.bridge."""
    from nemo_amalia.bridge.llava_next import LlavaNextBridge
    from nemo_amalia.bridge.saved_config import read_provider

    if run.model.checkpoint != NO_PLACE:
        return read_provider(run.model.checkpoint)
    return LlavaNextBridge().provider_bridge(SimpleNamespace(config=hf_config(run)))
