"""Checkpoints name classes by module: those written before the folders were rearranged (139eb4f) must still load.

tests/data/checkpoints has the run_config.yaml of two checkpoints of that commit's demo, without weights: one written by
`amalia import` and one of stage dpo.
"""

import importlib
import shutil
from pathlib import Path

import pytest
import yaml
from launcher import launch

SAVED = sorted((Path(__file__).resolve().parents[2] / "data" / "checkpoints").glob("*.yaml"))
OURS = {
    "nemo_amalia.model.provider.AmaliaVLModelProvider",
    "nemo_amalia.model.connectors.ConnectorConfig",
    "nemo_amalia.model.vision.VisionConfig",
    "nemo_amalia.model.layer_specs.decoder_layer_spec",
}
OF_TRAINING = {"nemo_amalia.data.provider.AmaliaDatasetProvider", "nemo_amalia.model.freeze.ModuleLearningRates"}


def targets(node) -> set[str]:
    """Every `_target_` of a saved configuration."""
    if isinstance(node, list):
        return set().union(*map(targets, node))
    if not isinstance(node, dict):
        return set()
    own = {node["_target_"]} if "_target_" in node else set()
    return own.union(*map(targets, node.values()))


def found(dotted: str):
    """The class or function that a target names; a class may stand in between (MegatronOptimizer.scale_loss)."""
    parts = dotted.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            value = getattr(value, name)
        return value
    raise ModuleNotFoundError(dotted)


def load(folder, files):
    """In a rank: import every target; read the model and the data set back as Bridge does."""
    from megatron.bridge.training.model_load_save import load_model_config
    from megatron.bridge.utils.instantiate_utils import instantiate, register_allowed_target_prefix

    register_allowed_target_prefix("nemo_amalia")
    seen = {}
    for file in files:
        saved = yaml.safe_load(Path(file).read_text())
        named = {dotted: found(dotted) is not None for dotted in targets(saved)}
        iteration = Path(folder) / Path(file).stem / "iter_0000001"
        iteration.mkdir(parents=True)
        shutil.copy(file, iteration / "run_config.yaml")
        provider, _ = load_model_config(str(iteration))
        parts = (saved.get("dataset"), saved.get("optimizer_config_override_provider"))
        rest = [instantiate(part) for part in parts if isinstance(part, dict)]
        values = (provider.num_layers, provider.vision.hidden_size, provider.connector.type, provider.tower_recompute)
        assert "vision_recompute" in saved["model"] and not hasattr(provider, "vision_recompute")  # its name then
        seen[Path(file).stem] = (named, values, sorted(type(one).__name__ for one in rest))
    return seen


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("saved"))
    return launch(load, 1, {"folder": folder, "files": [str(file) for file in SAVED]})[0]


def test_every_target_is_there(loaded):
    assert set(loaded) == {"139eb4f_imported", "139eb4f_trained"}
    for name, (named, _, _) in loaded.items():
        assert all(named.values()) and len(named) > 10
        ours = {dotted for dotted in named if dotted.startswith("nemo_amalia.")}
        assert ours == OURS | (OF_TRAINING if name.endswith("trained") else set())


def test_model_and_data_set_are_read_back(loaded):
    for name, (_, values, rest) in loaded.items():
        assert values == (4, 128, "mlp", False)
        trained = name.endswith("trained")
        assert rest == (
            ["AmaliaDatasetProvider", "ModuleLearningRates"] if trained else ["OptimizerConfigOverrideProvider"]
        )
