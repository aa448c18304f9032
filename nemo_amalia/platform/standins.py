"""How Megatron is imported on a CPU: what is hidden from it, and what stands in while it loads.

Megatron-Core must not find Transformer Engine or NVRx (it then takes its local fallbacks; where Transformer
Engine is importable, it would use its norm in local specs too, and that needs a GPU). Megatron Bridge imports
both without asking: ``peft.lora_layers`` imports ``transformer_engine.pytorch`` and ``training.pretrain``
imports ``nvidia_resiliency_ext.inprocess``; empty stand-ins satisfy those two lines.
"""

import importlib
import importlib.machinery
import sys
import types

import torch

_HIDDEN = ("transformer_engine", "nvidia_resiliency_ext")
# The modules that look for Transformer Engine or NVRx when they are first imported.
_CORE = (
    "megatron.core",
    "megatron.core.extensions.transformer_engine",
    "megatron.core.models.backends",
    "megatron.core.models.gpt",
    "megatron.core.models.gpt.gpt_layer_specs",
    "megatron.core.optimizer",
)
_BRIDGE = ("megatron.bridge", "megatron.bridge.training.finetune", "megatron.bridge.training.pretrain")


class _StandIn(types.ModuleType):
    """A module whose every attribute is an empty nn.Module class: enough to be subclassed and imported from."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (torch.nn.Module,), {})


def _stand_in(name: str) -> _StandIn:
    module = _StandIn(name)
    module.__path__, module.__version__ = [], "0.0.0"
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    sys.modules[name] = module
    return module


def import_megatron() -> None:
    """Import Megatron-Core and Megatron Bridge so that both work without a GPU. Takes about 16 s."""
    for name in _HIDDEN:
        sys.modules[name] = None
    for name in _CORE:
        importlib.import_module(name)
    _mend_core()
    engine, engine_torch = _stand_in("transformer_engine"), _stand_in("transformer_engine.pytorch")
    engine.pytorch, engine_torch.ops = engine_torch, _StandIn("ops")
    resiliency = _stand_in("nvidia_resiliency_ext")
    resiliency.inprocess = _stand_in("nvidia_resiliency_ext.inprocess")
    for name in _BRIDGE:
        importlib.import_module(name)
    _mend_bridge()
    for name in ("transformer_engine", "transformer_engine.pytorch"):
        sys.modules[name] = None


def _mend_recompute() -> None:
    """A decoder in FP8 is recomputed by Transformer Engine's checkpoint, which also recomputes its scales: ours are.

    fp8_emulation.py takes scales from the tensors themselves, so Megatron-Core's own checkpoint serves.
    """
    import megatron.core.recompute as recompute
    from megatron.core import tensor_parallel

    recompute.te_checkpoint = lambda run, distribute, get_rng_tracker, tp_group, *args: tensor_parallel.checkpoint(
        run, distribute, *args
    )


def _mend_core() -> None:
    _mend_recompute()
    import megatron.core.tensor_parallel.random as tp_random

    # These two reach into torch.cuda.default_generators by device index.
    tp_random._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    tp_random._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)

    import megatron.core.dist_checkpointing.strategies.filesystem_async as checkpoint_writer

    # The first save starts a queue process; spawned, it imports all of Megatron again (13 s a rank).
    checkpoint_writer.get_write_results_queue.__wrapped__.__defaults__ = ("fork",)
    from megatron.core.dist_checkpointing.strategies.async_utils import PersistentAsyncCaller

    # The process that writes asynchronous checkpoints sets its CUDA device first: forked, it finds this platform's.
    plain_process = PersistentAsyncCaller._get_process.__func__
    PersistentAsyncCaller._get_process = classmethod(
        lambda cls, rank, mp_mode="fork", *priorities: plain_process(cls, rank, "fork", *priorities)
    )
    _mend_optimizer()


def _mend_optimizer() -> None:
    """Resuming torch's AdamW under Megatron's distributed optimizer; Transformer Engine's Adam needs neither.

    Transformer Engine's keeps ``step`` in the parameter group, torch's in the state of each parameter.
    """
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    plain_state_dict, plain_load = DistributedOptimizer.state_dict, DistributedOptimizer.load_state_dict

    def state_dict(self):
        # Asked before the first step of a resumed run, when torch's state is still empty: Megatron-Core asserts.
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if not self.optimizer.state[parameter]:
                    zeros = {name: torch.zeros_like(parameter.data) for name in ("exp_avg", "exp_avg_sq")}
                    self.optimizer.state[parameter].update(step=torch.tensor(0.0), **zeros)
        return plain_state_dict(self)

    def load_state_dict(self, state_dict):
        plain_load(self, state_dict)
        # Megatron-Core gives all parameters ONE step tensor, which then counts up once a parameter, not once a step:
        # a resumed run would have another bias correction, in silence (tests/integration/test_resume.py).
        for state in self.optimizer.state.values():
            state["step"] = state["step"].clone()

    plain_set = DistributedOptimizer._set_main_param_and_optimizer_states

    def set_states(self, model_param, tensors):
        # ``step`` came with the group; what is stored beside the moments is skipped or missing, by checkpoint format.
        plain_set(self, model_param, {**tensors, "step": None})

    DistributedOptimizer.state_dict, DistributedOptimizer.load_state_dict = state_dict, load_state_dict
    DistributedOptimizer._set_main_param_and_optimizer_states = set_states


def _mend_bridge() -> None:
    import megatron.bridge.training.initialize as initialize

    # The wheel ships helpers_cpp compiled; the run-time compile looks for a Makefile that it does not ship.
    initialize.compile_helpers = lambda: None
    # "Megatron requires CUDA." asserts torch.cuda.is_available(), which must stay False for everybody else:
    # Bridge's conversion and Megatron's checkpointing ask it to choose a device. So only this module is told yes.
    initialize.torch = _TorchWithCuda("torch_with_cuda")


class _TorchWithCuda(types.ModuleType):
    """torch, as seen by ``megatron.bridge.training.initialize`` alone."""

    def __getattr__(self, name):
        return _CudaThatIsThere("cuda") if name == "cuda" else getattr(torch, name)


class _CudaThatIsThere(types.ModuleType):
    def __getattr__(self, name):
        return (lambda: True) if name == "is_available" else getattr(torch.cuda, name)
