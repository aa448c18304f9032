"""The CPU platform changes nothing for anybody but Megatron.

Each check runs in a process of its own, once plain and once prepared: what a wrapped torch factory did to
transformers (rotary tables of garbage, without a word: shared/prototypes) must not come back.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_hf
from launcher import launch

ROOT = Path(__file__).resolve().parents[3]

MODELS = """
import hashlib, json, sys
if sys.argv[1] == "prepared":
    from nemo_amalia.platform import prepare
    backend = prepare()
import torch
from transformers import LlamaForCausalLM, LlavaNextForConditionalGeneration

def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()

found = {}
for cls, folder in ((LlamaForCausalLM, sys.argv[2]), (LlavaNextForConditionalGeneration, sys.argv[3])):
    model = cls.from_pretrained(folder, dtype=torch.float32).eval()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"{cls.__name__}.{name}"] = digest(tensor)
    with torch.no_grad():
        found[f"{cls.__name__} logits"] = digest(model(torch.arange(4, 44)[None]).logits)
    torch.manual_seed(0)
    fresh = cls(model.config)
    found[f"{cls.__name__} fresh"] = digest(torch.cat([p.flatten() for p in fresh.parameters()]))
with torch.device("meta"):
    made = [torch.empty(2), torch.arange(3), torch.ones(2), torch.nn.Linear(2, 2).weight]
found["meta"] = [tensor.device.type for tensor in made]
found["is_available"] = torch.cuda.is_available()
print("FOUND", json.dumps(found))
"""


def run(script, *arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    out = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr[-3000:]
    [line] = [line for line in out.stdout.splitlines() if line.startswith("FOUND ")]
    return json.loads(line.removeprefix("FOUND "))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What a plain process and a prepared one found."""
    folder = tmp_path_factory.mktemp("models")
    folders = tiny_hf.llama(folder / "llama"), tiny_hf.llava_next(folder / "llava")
    return [run(MODELS, how, *folders) for how in ("plain", "prepared")]


def test_transformers_models_are_the_same_bit_for_bit(both):
    plain, prepared = both
    assert any("inv_freq" in name for name in plain) and any("logits" in name for name in plain)
    assert {name for name in plain if plain[name] != prepared[name]} == set()
    assert set(plain) == set(prepared)


def test_the_meta_device_stays_meta(both):
    assert both[1]["meta"] == ["meta"] * 4


def test_nobody_is_told_of_a_gpu(both):
    assert both[1]["is_available"] is False


CUDA_ASKED_FOR = """
import json
from nemo_amalia.platform import prepare
backend = prepare()
assert prepare() == backend  # a second call is harmless
import torch
import megatron.bridge.training.initialize as initialize
tensor = torch.empty(2, device="cuda")
moved = [tensor, torch.zeros(2, device=torch.cuda.current_device()), torch.ones(1).cuda(), torch.ones(1).to("cuda")]
found = {
    "backend": backend,
    "devices": [t.device.type for t in moved],
    "initialize": initialize.torch.cuda.is_available(),
    "type": torch.zeros(1).type(),
    "float": torch.cuda.FloatTensor([1.5]).tolist(),
}
print("FOUND", json.dumps(found))
"""


def test_what_megatron_asks_of_cuda_lands_on_the_cpu():
    found = run(CUDA_ASKED_FOR)
    assert found == {
        "backend": "gloo",
        "devices": ["cpu"] * 4,
        "initialize": True,  # Bridge asserts it
        "type": "torch.cuda.FloatTensor",  # Megatron's DistributedOptimizer compares with it
        "float": [1.5],
    }


def legacy_types():
    import torch
    from megatron.core.transformer.module import float16_to_fp32

    wide = float16_to_fp32((torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.int64)))
    made = [torch.cuda.FloatTensor([1.5, 2.0]), torch.cuda.IntTensor(3)]
    return [str(x.dtype) for x in wide], [(str(x.dtype), list(x.shape)) for x in made]


def test_megatron_tells_bf16_from_other_types():
    """Float16Module asks isinstance of torch.cuda.BFloat16Tensor; a function in its place ended every bf16 run."""
    [(wide, made)] = launch(legacy_types, 1)
    assert wide == ["torch.float32", "torch.int64"]
    assert made == [("torch.float32", [2]), ("torch.int32", [3])]
