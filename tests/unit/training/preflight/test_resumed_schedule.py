"""A run that began before its configuration was kept resumes with the schedule that Bridge saved, or is refused."""

import pytest
import yaml

from nemo_amalia.config.schema import RunConfig
from nemo_amalia.training.preflight.resume import check_resume, keep_config
from nemo_amalia.utils.errors import UserError


@pytest.fixture
def run(tmp_path):
    """A run folder saved at step 30, with the names that Bridge gives these values in run_config.yaml."""
    run = RunConfig(run_dir=str(tmp_path))
    run.stage.train_steps, run.stage.warmup_fraction, run.stage.min_lr_ratio = 100, 0.03, 0.01
    run.stage.trainable = ["tower", "decoder"]
    run.stage.learning_rates.tower, run.stage.learning_rates.decoder = 2e-6, 1e-5
    folder = tmp_path / "checkpoints" / "iter_0000030"
    folder.mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("30\n")
    saved = {
        "train": {"global_batch_size": run.stage.global_batch_size},
        "scheduler": {
            "lr_decay_iters": 100,
            "lr_decay_style": run.stage.schedule,
            "lr_warmup_iters": 3,
            "start_weight_decay": run.optim.weight_decay,
        },
        "optimizer_config_override_provider": {
            "lrs": {"tower": 2e-6, "decoder": 1e-5},
            "min_lrs": {"tower": 2e-6 * 0.01, "decoder": 1e-5 * 0.01},
        },
    }
    (folder / "run_config.yaml").write_text(yaml.safe_dump(saved))
    return run


def test_the_same_schedule_goes_on(run, tmp_path):
    check_resume(run)
    keep_config(run)  # of this run nobody knows the rest
    assert not (tmp_path / "run_config.json").exists()
    check_resume(RunConfig(run_dir=str(tmp_path / "new")))


CHANGES = {
    "train_steps=100 (now 120), steps of warm-up=3 (now 4)": ("train_steps", 120),
    "global_batch_size=": ("global_batch_size", 7),
    "schedule=": ("schedule", "constant"),
    "min_lr_ratio=0.01 (now 0.1)": ("min_lr_ratio", 0.1),
    "steps of warm-up=3 (now 10)": ("warmup_fraction", 0.1),
}


@pytest.mark.parametrize("said", CHANGES)
def test_another_is_refused_by_name(run, said):
    name, value = CHANGES[said]
    setattr(run.stage, name, value)
    with pytest.raises(UserError) as info:
        check_resume(run)
    message = str(info.value)
    assert "goes on after step 30 of a run with " in message and said in message and "\n" not in message
    assert f"model.checkpoint={run.run_dir}/checkpoints and another run_dir" in message


@pytest.mark.parametrize("modules", [["tower", "connector", "decoder"], ["decoder"]])
def test_more_or_fewer_modules_are_refused(run, modules):
    run.stage.trainable, run.stage.learning_rates.connector = modules, 1e-5
    said = rf"stage.trainable=\[tower,decoder\] \(now \[{','.join(modules)}\]\): give those"
    with pytest.raises(UserError, match=said):
        check_resume(run)


def test_a_module_s_rate_and_the_weight_decay_count(run):
    run.stage.learning_rates.tower, run.optim.weight_decay = 1e-6, 0.25
    with pytest.raises(UserError, match=r"learning_rates.tower=2e-06 \(now 1e-06\), optim.weight_decay=.*now 0.25"):
        check_resume(run)
