"""What happens around Bridge's loop: the progress line, metrics.jsonl and TensorBoard, data positions."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import torch
from megatron.bridge.training.callbacks import Callback, CallbackContext
from megatron.bridge.training.utils.pg_utils import get_pg_collection

from nemo_amalia.config.schema import PREFERENCE_STAGE, RunConfig
from nemo_amalia.training.callbacks.grad_norms import module_grad_norms
from nemo_amalia.training.callbacks.run_state import write_state
from nemo_amalia.training.job.console import Console
from nemo_amalia.training.steps.counts import StepCounts
from nemo_amalia.utils.devices import has_gpu
from nemo_amalia.utils.files import read_json_lines
from nemo_amalia.utils.text import duration


def is_reporter() -> bool:
    """The last rank reports: it holds the loss, whatever the pipeline size."""
    return torch.distributed.get_rank() == torch.distributed.get_world_size() - 1


class Progress(Callback):
    """One line every ``interval`` steps, one record of metrics a step.

    metrics.jsonl and the trackers (TensorBoard, W&B, MLflow) carry: loss (mean over loss tokens), grad_norm, lr of each
    module, tokens_per_second, pack_fill (tokens over capacity), samples, tokens, image_tokens, tiles, all of the whole
    global batch; peak_memory_gb of the reporting rank, so far. Stage dpo: loss is the mean over pairs, and samples
    counts pairs; beside them what DPOStep reports and grad_norm of each module.
    """

    def __init__(self, console: Console, run: RunConfig, counts: StepCounts):
        self.console, self.stage, self.parallel, self.counts = console, run.stage, run.parallel, counts
        self.total = min(run.stage.train_steps, run.stop_after or run.stage.train_steps)
        self.interval = run.logging.interval
        self.metrics = Path(run.run_dir) / "metrics.jsonl"
        self._rates: dict[str, float] = {}
        self._begin = self._step_begin = time.perf_counter()
        self._first_step = 0

    def on_train_start(self, context: CallbackContext) -> None:
        """Say what is trained, and cut metrics of steps that a resume will repeat."""
        self._first_step = context.state.train_state.step
        self._begin = self._step_begin = time.perf_counter()
        if not is_reporter():
            return
        if self.metrics.exists():
            kept = [r for r in read_json_lines(self.metrics) if r["step"] <= self._first_step]
            self.metrics.write_text("".join(json.dumps(r) + "\n" for r in kept))
        p, ranks = self.parallel, torch.distributed.get_world_size()
        layout = f"tensor {p.tensor} x pipeline {p.pipeline} x context {p.context}"
        write_state(self.metrics.parent, self.stage.name, self.total, self._first_step, ranks, layout)
        start = f"resumed after step {self._first_step}" if self._first_step else "started"
        self.console.say(f"[{self.stage.name}] {start}; {self.total} steps")

    def on_train_step_start(self, context: CallbackContext) -> None:
        """The rates that this step will use: the schedule moves on before the step ends."""
        for name in self.stage.trainable:
            peak = getattr(self.stage.learning_rates, name)
            group = {"max_lr": peak, "min_lr": peak * self.stage.min_lr_ratio}
            self._rates[name] = float(context.scheduler.get_lr(group))

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Measure, sum over data-parallel ranks, write, and every ``interval`` steps say so."""
        now = time.perf_counter()
        seconds, self._step_begin = now - self._step_begin, now
        counts = self.counts.take(get_pg_collection(context.model).dp)
        norms = {}
        if self.stage.name == PREFERENCE_STAGE:
            norms = module_grad_norms(context.model, context.optimizer, float(context.grad_norm or 0.0))
        if not is_reporter():
            return
        step = context.state.train_state.step + 1
        loss, *others = (context.loss_dict or {"loss": float("nan")}).items()
        record = {
            "step": step,
            "loss": float(loss[1]),
            **{name: float(value) for name, value in others},
            "grad_norm": float(context.grad_norm or 0.0),
            **{f"grad_norm/{name}": norm for name, norm in norms.items()},
            **{f"lr/{name}": rate for name, rate in self._rates.items()},
            "seconds": seconds,
            "tokens_per_second": counts.tokens / seconds,
            "pack_fill": counts.tokens / max(counts.capacity, 1),
            "samples": counts.samples,
            "tokens": counts.tokens,
            "image_tokens": counts.image_tokens,
            "loss_tokens": counts.loss_tokens,
            "tiles": counts.tiles,
            "peak_memory_gb": peak_bytes() / 1e9,
        }
        self._write(context, record)
        if step % self.interval == 0 or step == self.total:
            self.console.say(self._line(record, now))

    def _write(self, context: CallbackContext, record: dict) -> None:
        with open(self.metrics, "a") as out:
            out.write(json.dumps(record) + "\n")
        # Bridge's own log takes to the trackers what the step reports, and the gradient norm of the whole model.
        names = ("pack_fill", "tokens_per_second", "samples", "image_tokens", "tiles", "peak_memory_gb")
        values = {f"data/{name}": record[name] for name in names}
        values |= {name: value for name, value in record.items() if name.startswith(("lr/", "grad_norm/"))}
        state = context.state
        if state.tensorboard_logger is not None:
            for name, value in values.items():
                state.tensorboard_logger.add_scalar(name, value, record["step"])
        if state.wandb_logger is not None:
            state.wandb_logger.log(values, record["step"])
        if state.mlflow_logger is not None:
            state.mlflow_logger.log_metrics(values, step=record["step"])

    def _line(self, record: dict, now: float) -> str:
        done = record["step"] - self._first_step
        left = (now - self._begin) / done * (self.total - record["step"])
        rate = max((value for name, value in record.items() if name.startswith("lr/")), default=0.0)
        pairs = ""
        if "rewards/margins" in record:
            pairs = f"  margin {record['rewards/margins']:.3f}  accuracy {record['rewards/accuracies']:.1%}"
        return (
            f"[{self.stage.name}] step {record['step']:>5}/{self.total}  loss {record['loss']:.4f}{pairs}  "
            f"lr {rate:.2e}  grad {record['grad_norm']:.2f}  fill {record['pack_fill']:.1%}  "
            f"{record['tokens_per_second']:,.0f} tokens/s  left {duration(left)}"
        )


def peak_bytes() -> int:
    """Since the process began. GPU: what torch's tensors took; CPU: resident pages, libraries included."""
    if has_gpu():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
