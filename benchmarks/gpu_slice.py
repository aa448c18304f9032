"""A rank of benchmarks/gpu_step.py: ``torchrun -m benchmarks.gpu_slice KEY=VALUE ...``, the words of `amalia train`.

Random weights that are made on the GPU; no checkpoint is read or written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nemo_amalia.config.compose import compose


def train_slice(words: list[str], backend: str) -> None:
    """The run in this rank: random weights, no checkpoint read or written; metrics.jsonl as of every run."""
    from megatron.bridge.training.pretrain import pretrain

    from benchmarks.gpu_stream import SlicePacks
    from nemo_amalia.cluster.plan.architecture import provider_of
    from nemo_amalia.config.derived import segment_multiple
    from nemo_amalia.config.validation.layout import validate_layout
    from nemo_amalia.config.validation.precision import validate_precision
    from nemo_amalia.training.callbacks.progress import Progress
    from nemo_amalia.training.job.console import Console
    from nemo_amalia.training.setup.bridge_config import build_container
    from nemo_amalia.training.steps.counts import StepCounts
    from nemo_amalia.training.steps.sft import SFTStep

    run = compose(words)
    console = Console(run.run_dir, int(os.environ["RANK"]))
    console.redirect_libraries()
    validate_precision(run)  # not validate(): there is neither a checkpoint nor a data folder
    validate_layout(run, int(os.environ["WORLD_SIZE"]))
    model = provider_of(run)
    container = build_container(run, model, Path(run.run_dir), backend)
    container.model.perform_initialization = True
    places = container.checkpoint
    places.pretrained_checkpoint = places.load = places.save = None
    container.dataset = SlicePacks(
        seq_length=run.stage.seq_length,
        segment_multiple=segment_multiple(run),
        image_token_id=model.image_token_id,
        geometry=model.image_geometry(),
    )
    counts = StepCounts()
    pretrain(container, SFTStep(counts), callbacks=[Progress(console, run, counts)])


def main() -> None:
    """A rank under torchrun; leaves at once where it fails, since peers may hang in a collective."""
    from nemo_amalia.platform import prepare

    code, backend = 0, prepare()
    try:
        train_slice(sys.argv[1:], backend)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
