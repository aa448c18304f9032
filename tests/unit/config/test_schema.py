"""Every key says what it may hold and whether it may change when a run resumes, and holds it by default."""

import copy
import dataclasses
from pathlib import Path

import pytest
import yaml

from nemo_amalia.config.compose import APART, CONF, compose
from nemo_amalia.config.key import MAPPING, keys_of
from nemo_amalia.config.schema import MISSING, RunConfig
from nemo_amalia.config.validation.ranges import check_ranges
from nemo_amalia.utils.errors import UserError

KEYS = list(keys_of(RunConfig))
NUMERIC = [key for key in KEYS if key.numeric]
PLACES = ["run_dir=runs/x", "model.checkpoint=ckpt", "data.path=data"]
FILES = sorted(path for path in CONF.rglob("*.yaml") if path.relative_to(CONF).parts[0] not in APART)


def leaves(schema, prefix=""):
    """(dotted name, dataclass field) of every key, without keys_of."""
    for item in dataclasses.fields(schema):
        if dataclasses.is_dataclass(item.type):
            yield from leaves(item.type, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item


def test_every_field_says_whether_it_may_change_on_resume():
    without = [name for name, item in leaves(RunConfig) if item.metadata.get(MAPPING, {}).get("on_resume") is None]
    assert not without, f"{without}: make them with same(...) or free(...) of config/key.py"
    assert {key.on_resume for key in KEYS} == {"same", "free"}
    assert [key.name for key in KEYS] == [name for name, _ in leaves(RunConfig)] and len(KEYS) > 80


def test_every_number_has_a_range():
    without = [key.name for key in NUMERIC if not key.bounded]
    assert not without, f"{without}: give them least or above, and most or below"
    assert len(NUMERIC) > 50


def test_defaults_are_in_range():
    for name, item in leaves(RunConfig):
        default = item.default_factory() if item.default is dataclasses.MISSING else item.default
        key = next(key for key in KEYS if key.name == name)
        assert default == MISSING or key.fits(default), name


def set_in(run, name, value):
    *sections, last = name.split(".")
    for section in sections:
        run = getattr(run, section)
    setattr(run, last, value)


def flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_values_of_conf_are_in_range(file):
    group = Path(file).relative_to(CONF).parts[:-1]
    values = {name: value for name, value in yaml.safe_load(file.read_text()).items() if name != "defaults"}
    known = {key.name: key for key in KEYS}
    for name, value in flat(values, f"{group[0]}." if group else ""):
        key = known[name]
        assert key.fits(float(value) if key.kind is float else value), f"{name} is {value}: {key.remedy()}"
    if group:
        check_ranges(compose([f"{group[0]}={file.stem}", *PLACES]))


def beyond(key):
    """Numbers that a key may not hold, each side and none."""
    if key.kind is int:
        yield from (key.least - 1, key.most + 1, 2**70, -(2**70))
        yield key.least + 0.5
    else:
        yield key.least - 1e-9 if key.above is None else key.above
        yield key.most * 1.001 + 1e-9 if key.below is None else key.below
        yield 10**400
    yield from (float("nan"), float("inf"), float("-inf"), True, "1")


@pytest.fixture(scope="module")
def run():
    return compose(["stage=sft_demo", *PLACES])


@pytest.mark.parametrize("key", NUMERIC, ids=lambda key: key.name)
def test_no_number_beyond_its_range_passes(run, key):
    for value in beyond(key):
        changed = copy.deepcopy(run)
        set_in(changed, key.name, value)
        with pytest.raises(UserError) as caught:
            check_ranges(changed)
        assert str(caught.value).startswith(f"{key.name} is ") and str(caught.value).endswith(f": {key.remedy()}")


@pytest.mark.parametrize("key", NUMERIC, ids=lambda key: key.name)
def test_the_ends_of_a_range_pass(run, key):
    step = 1e-6
    ends = [key.least if key.above is None else key.above + step, key.most if key.below is None else key.below - step]
    for value in [*ends, None] if key.optional else ends:
        changed = copy.deepcopy(run)
        set_in(changed, key.name, value)
        check_ranges(changed)


def test_what_a_large_run_needs_is_in_range(run):
    """1,024 GPUs and packs of 128K tokens, beyond the paper's 128 and 16K."""
    large = {
        "launch.ranks": 1024, "parallel.world_size": 1024, "parallel.tensor": 8, "parallel.pipeline": 16,
        "parallel.context": 8, "parallel.virtual_pipeline": 5, "stage.seq_length": 131_072, "cluster.gpus_per_node": 72,
        "stage.global_batch_size": 16_384, "stage.train_steps": 1_000_000, "data.packing_buffer_size": 10_000,
        "data.shuffle_buffer_size": 1_000_000, "data.worker_timeout": 86_400.0, "data.num_workers": 64,
    }  # fmt: skip
    for name, value in large.items():
        set_in(run, name, value)
    check_ranges(run)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("stage.warmup_fraction", 2.0, "stage.warmup_fraction is 2: expected a number from 0 to 1"),
        ("optim.adam_eps", 0.0, "optim.adam_eps is 0: expected a number above 0 and at most 1"),
        ("optim.adam_beta2", 1.0, "optim.adam_beta2 is 1: expected a number of at least 0 and below 1"),
        ("launch.ranks", -1, "launch.ranks is -1: expected a whole number from 1 to 1,000,000, or null"),
        ("data.num_workers", 100_000, "data.num_workers is 100000: expected a whole number from 0 to 512"),
        ("stage.schedule", "linear", "stage.schedule is linear: choose one of constant, cosine"),
        ("stage.trainable", ["lm"], "is [lm]: choose one of tower, connector, decoder, or several, as [tower,"),
        ("run_dir", "", "run_dir is empty: expected a path"),
        ("data.path", " ", "data.path is empty: expected a path"),
        ("model.checkpoint", "", "model.checkpoint is empty: expected a path"),
        ("data.quarantine", "", "data.quarantine is empty: expected a path, or null"),
        ("stage.name", "", "stage.name is empty: expected a text"),
        ("stage.seq_length", MISSING, "no value for stage.seq_length: add stage.seq_length=... to the command"),
        ("stage.packing", None, "stage.packing is null: expected true or false"),
    ],
)
def test_refusals_say_what_was_seen_and_what_to_give(run, name, value, said):
    changed = copy.deepcopy(run)
    set_in(changed, name, value)
    with pytest.raises(UserError) as caught:
        check_ranges(changed)
    assert said in str(caught.value) and "\n" not in str(caught.value)
