"""Logits on Transformer Engine in bf16, from a checkpoint that the CPU platform wrote.

Tolerance: transformers in bf16 is held against transformers in fp32 with the same weights, on the same GPU; Megatron's
error may be 1.5 times that. Both round at every layer, in other places, so the two errors are of one size and not
equal. Errors are root mean squares over all logits; a wrong weight or a tile in the wrong place is tens of times more
(the newline that is moved, below).
"""

import pytest
from gpu_ranks import start

ROOM = 1.5
# (width, height) of the images of a sample; [] is text alone.
CASES = [[], [(50, 90)], [(384, 32)], [(20, 20), (300, 40), (40, 300)], [(500, 40)], [(3, 3)]]
TWO = {"tp": 2, "sp": False}


def logits(checkpoint, hf_folder, out, precision="bf16", layout=None, transformers=False, move_newline=False) -> dict:
    """In each rank: this rank's part of the vocabulary of every case, in ``out``.npz; errors where transformers is."""
    import numpy as np
    import torch
    import torch.distributed as dist
    from gpu_model import run_of
    from logit_samples import sample
    from megatron.core import parallel_state
    from megatron.core.utils import unwrap_model

    from nemo_amalia.bridge.saved_config import read_provider
    from nemo_amalia.training.reference.run import build_model

    run = run_of(checkpoint, f"{out}_run", layout=layout, precision=precision)
    (model,), _ = build_model(run, read_provider(checkpoint))
    inner = unwrap_model(model)
    if move_newline:
        with torch.no_grad():
            inner.image_newline[0] += 1.0
    device, found = torch.cuda.current_device(), {}
    inputs = [sample(inner.config.image_geometry(), [tuple(size) for size in sizes]) for sizes in CASES]
    with torch.no_grad():
        for number, (ids, pixels, shapes, tiles) in enumerate(inputs):
            pixels = None if pixels is None else pixels.to(device)
            ours, _ = model(ids.to(device), pixel_values=pixels, image_sizes=shapes, tiles_per_image=tiles)
            found[number] = ours.float()
        errors = _errors(hf_folder, inputs, found, device, layout) if transformers else {}
    np.savez(f"{out}_{dist.get_rank()}.npz", *(found[number].cpu().numpy() for number in found))
    names = _names(inner, checkpoint)
    parallel_state.destroy_model_parallel()
    return {"errors": errors, "names": names}


def _errors(hf_folder, inputs, found, device, layout):
    """Root mean squares against transformers in fp32: of ours, of transformers' own bf16, and of the logits."""
    import torch
    from logit_samples import hf_logits
    from megatron.core import parallel_state
    from transformers import LlavaNextForConditionalGeneration

    theirs = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = LlavaNextForConditionalGeneration.from_pretrained(hf_folder, dtype=dtype).eval().to(device)
        for number, (ids, pixels, shapes, tiles) in enumerate(inputs):
            pixels = None if pixels is None else pixels.to(device, dtype)
            whole = hf_logits(model, ids.to(device), pixels, shapes, tiles).float()
            parts = whole.chunk((layout or {}).get("tp", 1), -1)
            theirs[dtype, number] = parts[parallel_state.get_tensor_model_parallel_rank()]
    exact = torch.cat([theirs[torch.float32, number].flatten() for number in found])
    rounded = torch.cat([theirs[torch.bfloat16, number].flatten() for number in found])
    ours = torch.cat([found[number].flatten() for number in found])
    size = lambda x: x.square().mean().sqrt().item()  # noqa: E731
    return {"ours": size(ours - exact), "theirs": size(rounded - exact), "logits": size(exact)}


def _names(model, checkpoint):
    """What these layers ask of a checkpoint that it lacks, and what of it they leave."""
    from megatron.core.dist_checkpointing import load_content_metadata
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedObject
    from megatron.core.transformer.utils import ensure_metadata_has_dp_cp_group
    from torch.distributed.checkpoint import FileSystemReader

    from nemo_amalia.bridge.checkpoints import latest_iteration

    folder = str(latest_iteration(checkpoint))
    metadata = ensure_metadata_has_dp_cp_group(load_content_metadata(folder))
    asked = {
        entry.unique_key if isinstance(entry, ShardedObject) else entry.key
        for entry in nested_values(model.sharded_state_dict(metadata=metadata))
    }
    stored = set(FileSystemReader(folder).read_metadata().state_dict_metadata)
    left = [name for name in stored - asked if "_extra_state" not in name and not name.startswith("common_state")]
    return {"missing": sorted(asked - stored), "left": sorted(left), "asked": len(asked)}


@pytest.fixture(scope="module")
def launched(checkpoint, hf_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("logits")

    def launch(name, ranks=1, on=None, **options):
        arguments = {"checkpoint": checkpoint, "hf_folder": hf_folder, "out": str(folder / name), **options}
        return start("test_gpu_logits.py", "logits", ranks, arguments, on=on), folder / name

    return launch


@pytest.fixture(scope="module")
def one_gpu(launched):
    return launched("one", transformers=True)


@pytest.mark.gpu
def test_no_worse_than_transformers_in_bf16(one_gpu):
    errors = one_gpu[0][0]["errors"]
    assert 0 < errors["theirs"] < 0.1 * errors["logits"]
    assert errors["ours"] <= ROOM * errors["theirs"], errors


@pytest.mark.gpu
def test_a_moved_newline_is_seen(launched):
    errors = launched("moved", transformers=True, move_newline=True)[0][0]["errors"]
    assert errors["ours"] > 2 * ROOM * errors["theirs"], errors


@pytest.mark.gpu(gpus=2)
def test_two_tensor_parallel_gpus(launched):
    for rank in launched("two", ranks=2, transformers=True, layout=TWO)[0]:
        assert rank["errors"]["ours"] <= ROOM * rank["errors"]["theirs"], rank["errors"]


@pytest.mark.gpu
def test_names_are_those_of_the_checkpoint(one_gpu):
    """Transformer Engine's modules ask for what TorchSpecProvider's wrote, to the last empty ``_extra_state``."""
    names = one_gpu[0][0]["names"]
    assert names["asked"] > 30 and names["missing"] == [] and names["left"] == []


def gathered(path):
    import numpy as np

    with np.load(f"{path}_0.npz") as found:
        return np.concatenate([found[name].ravel() for name in found.files])


@pytest.mark.gpu
def test_a_checkpoint_of_the_cpu_gives_the_same_logits(one_gpu, launched):
    """The GPU's bf16 lies no further from the CPU's fp32 than 1.5 times the CPU's own bf16 does."""
    import numpy as np

    exact = gathered(launched("cpu_fp32", on="cpu", precision="fp32")[1])
    rounded = gathered(launched("cpu_bf16", on="cpu")[1])
    size = lambda x: float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))  # noqa: E731
    assert 0 < size(gathered(one_gpu[1]) - exact) <= ROOM * size(rounded - exact)
