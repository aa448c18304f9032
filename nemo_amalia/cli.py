"""``amalia <command>``: wiring only. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
from pathlib import Path

from nemo_amalia.utils.errors import INTERRUPTED, USER_ERROR, EnvironmentProblem, UserError
from nemo_amalia.utils.text import one_line

HELP = """AMALIA-VL's training system on NVIDIA's NeMo stack.

  amalia import --hf DIR --out CKPT                  a LLaVA-NeXT folder -> Megatron checkpoint
  amalia import --vision DIR --llm DIR --out CKPT    SigLIP + Llama, with a fresh connector: how stage 1 starts
  amalia train stage=alignment model.checkpoint=CKPT data.path=DIR run_dir=DIR [key=value ...]
  amalia status RUN_DIR                              step, loss, time left, data faults, state of the job
  amalia doctor                                      what is installed, what is missing, which command mends it
  amalia reference --checkpoint CKPT --data DIR      log-probabilities of the reference, for stage=dpo: FILE.parquet
  amalia export --checkpoint CKPT --out DIR          Megatron checkpoint -> folder that transformers loads
  amalia plan stage=sft parallel=gpus128_node4 cluster=marenostrum5   memory, hours and cost before you queue
  amalia dryrun stage=sft parallel=gpus128_node4 --rank all-distinct  a step of that job's ranks, on this machine
  amalia data mix stage=sft root=DIR [out=mix.yaml]  the data sets of a stage against the paper's, and their blend
  amalia data view SOURCE --assets HF --out P.html   shards as a page: tiles, tokens, loss, packs, what looks wrong
  amalia data import FORMAT SOURCE --out DIR         LLaVA json, parquet, captions, preference pairs -> shards
  amalia data verify DIR                             the shards of an import against their checksums
  amalia data pack SOURCE --assets HF --out INDEX    an index of packs: exact epochs, for data.pack_index=INDEX
"""


#: `amalia data <name>` -> the module whose add_command(subparsers) makes it; imported when the first word is `data`.
DATA_COMMANDS: dict[str, str] = {
    "mix": "nemo_amalia.data.mix.command",
    "view": "nemo_amalia.data.view.command",
    "import": "nemo_amalia.data.importing.command",
    "verify": "nemo_amalia.data.shards.verify",
    "pack": "nemo_amalia.data.packing.command",
}


def parser(with_data: bool = False) -> argparse.ArgumentParser:
    """The command line; ``with_data`` knows the commands below `amalia data`, too."""
    from nemo_amalia.config.schema import RunConfig

    top = argparse.ArgumentParser(prog="amalia", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    take = commands.add_parser("import", help="Hugging Face -> Megatron checkpoint")
    take.add_argument("--hf", type=Path, help="a LlavaNextForConditionalGeneration folder")
    take.add_argument("--vision", type=Path, help="a SigLIP folder; with --llm")
    take.add_argument("--llm", type=Path, help="a Llama folder with its tokenizer; with --vision")
    take.add_argument("--out", type=Path, required=True, help="the checkpoint folder to write")
    take.add_argument("--max-tiles", type=int, default=12, help="with --vision: tiles of the largest grid (paper: 12)")
    take.add_argument("--seed", type=int, default=RunConfig.seed, help="with --vision: of the fresh connector")
    take.add_argument("--dtype", choices=["fp32", "bf16"], help="default: as the weights are stored")
    give = commands.add_parser("export", help="Megatron checkpoint -> Hugging Face")
    give.add_argument("--checkpoint", type=Path, required=True)
    give.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet, or is empty")
    train = commands.add_parser("train", help="train a stage, here or as a rank of torchrun or Slurm")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="see conf/ and nemo_amalia/config/schema.py")
    train.add_argument("--check", action="store_true", help="only say whether launch.ranks=N ranks would start")
    refer = commands.add_parser(
        "reference", help="the reference's log-probabilities of preference pairs, for stage=dpo"
    )
    refer.add_argument("--checkpoint", type=Path, required=True, help="what stage dpo will start from")
    refer.add_argument("--data", type=Path, required=True, help="the pairs: what its data.path will be")
    refer.add_argument("--out", type=Path, help="default: beside the data, DIR.reference.parquet")
    refer.add_argument("overrides", nargs="*", metavar="key=value", help="as for train: parallel, precision, stage")
    _add_planning(commands)
    where = commands.add_parser("status", help="where a run stands: step, loss, time left, faults, its job")
    where.add_argument("run_dir", type=Path)
    where.add_argument("--json", action="store_true", help="the same as one JSON object")
    doctor = commands.add_parser("doctor", help="what is installed, what is missing, which command mends it")
    kind = doctor.add_mutually_exclusive_group()
    kind.add_argument("--cluster", action="store_true", help="as ranks of srun: network, clocks, disk, GPUs")
    kind.add_argument("--container", action="store_true", help="import everything, as a container's last step")
    doctor.add_argument("--run-dir", type=Path, help="with --cluster: the file system to measure")
    data = commands.add_parser("data", help="shards: the mix, importing, packing, looking at them")
    if with_data:
        data.set_defaults(run=lambda _: data.print_help() or USER_ERROR)  # `amalia data` alone: what there is
        below = data.add_subparsers(dest="data_command", metavar="command")
        for module in DATA_COMMANDS.values():
            importlib.import_module(module).add_command(below)
    return top


def _add_planning(commands) -> None:
    plan = commands.add_parser("plan", help="memory, time and cost of a run on a cluster, before it is queued")
    plan.add_argument("--search", action="store_true", help="rank the layouts that fit, instead of one")
    plan.add_argument("--packs", type=Path, help="an index of `amalia data pack`: real pack lengths")
    dry = commands.add_parser("dryrun", help="a step of the ranks of a big job: shapes, layout and memory, no GPU")
    dry.add_argument("--rank", default="all-distinct", help="a number, several as 0,64, or all-distinct (default)")
    dry.add_argument("--jobs", type=int, help="ranks at a time; default: one a core")
    for command in (plan, dry):
        command.add_argument("--world-size", type=int, help="GPUs of the job; default: parallel.world_size")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="as for train; folders are not needed")


@contextlib.contextmanager
def libraries_to(log: Path):
    """While libraries load and convert, what they print goes to a file; what we say goes to the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextlib.contextmanager
def megatron_loaded(log: Path):
    """As libraries_to, with Megatron ready inside; a line on stderr says what is waited for."""
    from nemo_amalia.training.job.console import announce_loading

    announce_loading()
    with libraries_to(log):
        from nemo_amalia.platform import prepare

        prepare()
        yield


def log_beside(out: Path) -> Path:
    """runs/x/base -> runs/x/base.log. Raises EnvironmentProblem where that cannot be written."""
    log = out.with_name(out.name + ".log")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        raise EnvironmentProblem(f"--out {out} cannot be written ({error.strerror}): choose another folder") from error
    return log


def run_import(arguments: argparse.Namespace) -> int:
    """amalia import."""
    if (arguments.hf is None) == (arguments.vision is None and arguments.llm is None):
        raise EnvironmentProblem("amalia import takes either --hf DIR, or --vision DIR and --llm DIR")
    if arguments.hf is None and (arguments.vision is None or arguments.llm is None):
        raise EnvironmentProblem("--vision and --llm go together: one gives the tower, the other the decoder")
    from nemo_amalia.bridge.folders import check_hf_folder

    for option, holds in (("hf", "a LLaVA-NeXT model"), ("vision", "a SigLIP model"), ("llm", "a Llama model")):
        if getattr(arguments, option) is not None:
            check_hf_folder(getattr(arguments, option), f"--{option}", holds)
    with megatron_loaded(log_beside(arguments.out)):
        from nemo_amalia.bridge.import_hf import import_checkpoint

        import_checkpoint(
            hf=arguments.hf,
            vision=arguments.vision,
            llm=arguments.llm,
            out=arguments.out,
            max_tiles=arguments.max_tiles,
            connector_seed=arguments.seed,
            dtype=arguments.dtype,
        )
    print(f"imported to {arguments.out}")
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """amalia export."""
    with megatron_loaded(log_beside(arguments.out)):
        from nemo_amalia.bridge.export_hf import export_checkpoint

        export_checkpoint(arguments.checkpoint, arguments.out)
    print(f"exported to {arguments.out}")
    return 0


def _fits_the_card(run, ranks: int) -> None:
    """Refuse a layout that the cluster's card cannot hold; nothing is loaded where no cluster is named."""
    if run.cluster.gpu_memory_gb:
        from nemo_amalia.cluster.plan.fits import check_memory

        check_memory(run, ranks)


def run_train(arguments: argparse.Namespace) -> int:
    """amalia train: start torchrun here, or be a rank where torchrun or Slurm already did."""
    from nemo_amalia.config.compose import compose
    from nemo_amalia.training.job.environment import inside_a_job
    from nemo_amalia.training.launch.train import check, default_ranks, launch

    if arguments.check:
        run = compose(arguments.overrides)
        print(check(run, default_ranks(run), arguments.overrides, [_fits_the_card]))
        return 0
    if inside_a_job():
        from nemo_amalia.training.main import main as rank_main

        sys.argv = [sys.argv[0], *arguments.overrides]
        rank_main()
        return 0
    return launch(compose(arguments.overrides), arguments.overrides, [_fits_the_card])


def run_reference(arguments: argparse.Namespace) -> int:
    """amalia reference: as run_train, with forward passes for the ranks' work."""
    from nemo_amalia.config.compose import compose
    from nemo_amalia.training.job.environment import inside_a_job
    from nemo_amalia.training.launch.reference import launch_reference, reference_overrides

    overrides = reference_overrides(arguments.checkpoint, arguments.data, arguments.out, arguments.overrides)
    if inside_a_job():
        import runpy

        sys.argv = [sys.argv[0], *overrides]
        runpy.run_module("nemo_amalia.training.reference_main", run_name="__main__")
        return 0
    return launch_reference(compose(overrides), overrides)


def _without_gpu(arguments: argparse.Namespace) -> Path:
    """Ready Megatron on the CPU platform, also where there is a GPU; returns where the libraries' output went."""
    log = Path(tempfile.gettempdir()) / f"amalia-{arguments.command}-{os.getpid()}.log"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with megatron_loaded(log):
        return log


def run_plan(arguments: argparse.Namespace) -> int:
    """amalia plan."""
    from nemo_amalia.cluster.commands import plan_command, search_command

    return search_command(arguments) if arguments.search else plan_command(arguments, lambda: _without_gpu(arguments))


def run_dryrun(arguments: argparse.Namespace) -> int:
    """amalia dryrun."""
    from nemo_amalia.cluster.commands import dryrun_command
    from nemo_amalia.cluster.dryrun.ranks import parse_ranks
    from nemo_amalia.cluster.plan.request import checked, model_of
    from nemo_amalia.training.job.console import announce_loading

    run, world = checked(arguments.overrides, arguments.world_size)
    ranks = parse_ranks(arguments.rank, run, world)
    announce_loading()
    shape = model_of(run, world)
    return dryrun_command(run, shape, world, ranks, arguments.jobs, _without_gpu(arguments))


def run_status(arguments: argparse.Namespace) -> int:
    """amalia status."""
    from nemo_amalia.cluster.status import show

    return show(arguments.run_dir, arguments.json)


def run_doctor(arguments: argparse.Namespace) -> int:
    """amalia doctor."""
    if arguments.cluster:
        from nemo_amalia.cluster.doctor.nodes import run_rank

        run_rank(arguments.run_dir)
    from nemo_amalia.cluster.doctor.machine import examine

    return examine(container=arguments.container)


def run_data(arguments: argparse.Namespace) -> int:
    """amalia data <command>."""
    return arguments.run(arguments)


COMMANDS = {
    "import": run_import,
    "export": run_export,
    "train": run_train,
    "reference": run_reference,
    "plan": run_plan,
    "dryrun": run_dryrun,
    "status": run_status,
    "doctor": run_doctor,
    "data": run_data,
}


def main(argv: list[str] | None = None) -> int:
    """Entry of the ``amalia`` command. A UserError is one line on stderr and exit code 2; other errors come out."""
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = parser(with_data=words[:1] == ["data"]).parse_args(words)
        return COMMANDS[arguments.command](arguments)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
