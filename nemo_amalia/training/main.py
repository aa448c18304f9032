"""The entry of a rank: ``torchrun -m nemo_amalia.training.main stage=sft ...``, or the same under srun.

``amalia train`` starts this file once a rank. Megatron is imported after the platform is ready; what the libraries
print goes to run_dir/logs/rank_N.log.
"""

import os
import sys
import traceback
from functools import partial

from nemo_amalia.config.compose import CONF, check_overrides, register_schema, to_run_config
from nemo_amalia.config.validation.ranges import check_ranges
from nemo_amalia.config.validation.run import validate
from nemo_amalia.platform import prepare
from nemo_amalia.training.job.console import CONSOLE_VARIABLE, Console, announce_loading, keep_stdout
from nemo_amalia.training.job.environment import restart_patience, slurm_environment
from nemo_amalia.training.job.rank_exit import code_of, let_the_culprit_speak, stop_on_usr1
from nemo_amalia.training.job.run_lock import claim
from nemo_amalia.training.launch.train import check_inputs
from nemo_amalia.utils.errors import STOPPED
from nemo_amalia.utils.process import end_with_parent


def train_rank(run, console, backend, overrides) -> None:
    """The work of a rank of `amalia train`."""
    if console.rank == 0:
        if CONSOLE_VARIABLE not in os.environ:  # nobody has looked yet: plain torchrun, or srun by hand
            check_inputs(run, overrides)
        claim(run.run_dir, patience=restart_patience(), say=console.say)
    from nemo_amalia.training.run import train

    train(run, console, backend, overrides)


def run_rank(values, work=train_rank, settle=None, overrides=()) -> None:
    """One rank from Hydra's values to the end of its work.

    settle(run, world) sets what follows from the ranks. overrides: the words that Hydra composed the values from.
    """
    run = to_run_config(values)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    console = Console(run.run_dir, rank)
    console.redirect_libraries()
    try:
        check_ranges(run)
        if settle is not None:
            settle(run, world)
        validate(run, world)
        work(run, console, prepare(), overrides)
    except BaseException as error:
        code = code_of(error)
        try:
            traceback.print_exc()
            sys.stderr.flush()
            let_the_culprit_speak(error)
            if code not in (0, STOPPED):
                console.fail(error)
        finally:  # torch raises here, too, when a data worker of ours is ended meanwhile
            # Peers may hang in a collective with us, and an orderly exit would join them: leave at once.
            os._exit(code)


def main(work=train_rank, settle=None) -> None:
    """Hydra's part: NeMo's hydra_runner composes conf/ with the command line and calls run_rank."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()
    stop_on_usr1()
    keep_stdout()
    slurm_environment()
    overrides = [word for word in sys.argv[1:] if not word.startswith("-")]
    check_overrides(overrides)
    if CONSOLE_VARIABLE not in os.environ and int(os.environ.get("RANK", 0)) == 0:  # else the launcher has said it
        announce_loading()
    prepare()
    from nemo.core.config import hydra_runner

    register_schema()
    rank = partial(run_rank, work=work, settle=settle, overrides=overrides)
    hydra_runner(config_path=str(CONF), config_name="config")(rank)()


if __name__ == "__main__":
    main()
