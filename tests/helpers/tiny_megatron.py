"""The Megatron side of the parity tests: a model of an HF folder at any layout, inside a rank started by launch()."""

import contextlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    tp: int = 1
    pp: int = 1
    cp: int = 1
    sp: bool = False
    vpp: int | None = None
    first: int | None = None  # layers of the first pipeline stage
    overlap: bool = False  # of gradient reduction and parameter gathers
    recompute: str = "none"

    @property
    def ranks(self) -> int:
        return self.tp * self.pp * self.cp

    def __str__(self) -> str:
        parts = [f"{name}{n}" for name, n in (("TP", self.tp), ("PP", self.pp), ("CP", self.cp)) if n > 1]
        return "x".join(parts or ["TP1"]) + ("+SP" if self.sp else "")


@contextlib.contextmanager
def parallel(provider, layout: Layout):
    """Megatron's groups for ``layout``, over all ranks of the world; undone at the end so that the next can follow."""
    import torch.distributed as dist
    from megatron.core import parallel_state

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    provider.tensor_model_parallel_size = layout.tp
    provider.pipeline_model_parallel_size = layout.pp
    provider.context_parallel_size = layout.cp
    provider.sequence_parallel = layout.sp
    exact(provider)
    provider.finalize()
    provider.initialize_model_parallel(seed=0)
    try:
        yield
    finally:
        parallel_state.destroy_model_parallel()


def exact(provider) -> None:
    """fp32 on the CPU without fused kernels, so that what is compared is the mathematics."""
    import torch

    provider.pipeline_dtype = provider.params_dtype = torch.float32
    provider.bf16 = provider.fp16 = False
    provider.use_cpu_initialization = True
    # The fused cross entropy rounds the gradient of the loss to bfloat16, fp32 model or not: 1e-3 off.
    provider.cross_entropy_loss_fusion = False
    fusions = "bias_activation masked_softmax bias_dropout apply_rope gradient_accumulation".split()
    for name in fusions:
        setattr(provider, name if name.endswith("rope") else f"{name}_fusion", False)
    provider.apply_rope_fusion = provider.persist_layer_norm = False


@contextlib.contextmanager
def model_of(folder, layout: Layout | None = None, **fields):
    """(bridge, [model]): the folder's weights in Megatron at ``layout``, on every rank of the world.

    fields: of the provider, to be changed.
    """
    import torch
    from megatron.bridge import AutoBridge

    import nemo_amalia.bridge.llava_next  # noqa: F401  registers LLaVA-NeXT
    from nemo_amalia.model.layer_specs import decoder_layer_spec

    bridge = AutoBridge.from_hf_pretrained(str(folder), device="cpu", torch_dtype=torch.float32)
    provider = bridge.to_megatron_provider(load_weights=True)
    provider.transformer_layer_spec = decoder_layer_spec  # of a plain Llama too
    for name, value in fields.items():
        setattr(provider, name, value)
    with parallel(provider, layout or Layout()):
        yield bridge, provider.provide_distributed_model(wrap_with_ddp=False)
