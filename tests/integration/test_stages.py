"""A stage trains exactly what it says, at the rates it says; a loss that is not finite stops the run by name."""

import pytest
from launcher import launch
from tiny_checkpoint import write_checkpoint
from tiny_megatron import Layout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("stages"))
    launch(write_checkpoint, 1, {"folder": place})
    return place


def train_stages(folder, stages):
    """For each stage: which modules changed, and {module: peak rates of its parameter groups}."""
    from megatron.bridge.training.callbacks import Callback
    from training_runs import run_config, train_fixed

    from nemo_amalia.model.freeze import module_of

    class Look(Callback):
        def on_train_start(self, context):
            self.before = {n: p.detach().clone() for n, p in context.model[0].named_parameters()}
            self.rates = sorted({(g["max_lr"], g["min_lr"]) for g in context.optimizer.param_groups if g["params"]})

        def on_train_end(self, context):
            self.changed = {n: not p.equal(self.before[n]) for n, p in context.model[0].named_parameters()}

    found = {}
    for trainable in stages:
        look = Look()
        run = run_config(
            f"{folder}/checkpoint", f"{folder}/{'_'.join(trainable)}", layout=Layout(tp=2, sp=True), steps=3,
            trainable=trainable,
        )  # fmt: skip
        train_fixed(run, callbacks=[look])
        by_module = {}
        for name, changed in look.changed.items():
            module = "post_layernorm" if "post_layernorm" in name else module_of(name)
            by_module.setdefault(module, []).append(changed)
        found[trainable] = ({module: (any(flags), all(flags)) for module, flags in by_module.items()}, look.rates)
    return found


STAGES = [("connector",), ("tower", "connector", "decoder"), ("decoder",)]


def test_a_stage_trains_exactly_what_it_says(folder):
    from training_runs import RATES

    for found in launch(train_stages, 2, {"folder": folder, "stages": STAGES}, timeout=300):
        for trainable in STAGES:
            changed, rates = found[trainable]
            assert changed["post_layernorm"] == (False, False)
            for module in RATES:
                everything = (True, True) if module in trainable else (False, False)
                assert changed[module] == everything, f"{trainable}: {module} (any, all) changed: {changed[module]}"
            assert {peak for peak, _ in rates} == {RATES[module] for module in trainable}


def poisoned(folder):
    from training_runs import run_config, train_fixed

    train_fixed(run_config(f"{folder}/checkpoint", f"{folder}/nan", steps=4, batch=2), poison_step=4)


def test_a_nan_loss_names_the_step_and_the_samples(folder):
    with pytest.raises(RuntimeError, match=r"the loss is nan at step 2; its micro-batch holds the samples fixed/0000"):
        launch(poisoned, 1, {"folder": folder})
