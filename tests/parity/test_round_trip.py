"""Hugging Face -> Megatron -> Hugging Face gives every tensor back bit for bit; what is exported works as its source.

Nothing is computed on the way, so all comparisons of tensors are exact.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import tiny_hf
from launcher import launch
from tiny_megatron import Layout, model_of

BY_RANKS = {1: [Layout()], 2: [Layout(tp=2), Layout(pp=2)], 4: [Layout(tp=2, pp=2)]}


def portable(tensors):
    """The names of transformers 5 as we write them."""
    from nemo_amalia.bridge.weight_map import PORTABLE

    return {n if ".vision_model." in n else n.replace("vision_tower.", PORTABLE.tower): t for n, t in tensors.items()}


def changed(before, after):
    """Names of tensors that are missing, new, or not bit-equal."""
    import torch

    odd = set(before) ^ set(after)
    return sorted(odd | {n for n in set(before) & set(after) if not torch.equal(before[n], after[n])})


def in_memory(folder, layouts):
    found = {}
    for layout in layouts:
        with model_of(folder, layout) as (bridge, models):
            exported = dict(bridge.export_hf_weights(models, cpu=True, show_progress=False))
            found[str(layout)] = (changed(tiny_hf.tensors(folder), exported), len(exported))
    return found


@pytest.mark.parametrize("ranks", BY_RANKS)
def test_weights_survive_every_layout(ranks, tmp_path):
    folder = tiny_hf.llava_next(tmp_path / "source")
    results = launch(in_memory, ranks, {"folder": str(folder), "layouts": BY_RANKS[ranks]}, timeout=400)
    for result in results:
        assert set(result) == {str(layout) for layout in BY_RANKS[ranks]}
        for layout, (odd, count) in result.items():
            assert (odd, count) == ([], len(tiny_hf.tensors(folder))), layout


def import_and_export(source, work, changes, shard_bytes):
    from nemo_amalia.bridge.export_hf import export_checkpoint
    from nemo_amalia.bridge.import_hf import import_checkpoint

    import_checkpoint(f"{work}/checkpoint", **source, **changes)
    export_checkpoint(f"{work}/checkpoint", f"{work}/exported", shard_bytes=shard_bytes)


def round_trip(work, source, shard_bytes=5_000_000_000, **changes):
    arguments = {"source": source, "work": str(work), "changes": changes, "shard_bytes": shard_bytes}
    launch(import_and_export, 1, arguments)
    return Path(work) / "exported"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_hf.llava_next(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    """The folder after import and export, in shards of 100 kB."""
    return round_trip(tmp_path_factory.mktemp("trip"), {"hf": str(source)}, shard_bytes=100_000)


def answer(folder):
    """(logits, generated ids, loading info) of a question about a picture, through transformers alone."""
    import numpy as np
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 255, (50, 90, 3), dtype=np.uint8))
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "O que é?"}]}]
    text = processor.apply_chat_template(question, add_generation_prompt=True)
    inputs = processor(images=[picture], text=text, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
    generated = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    return logits, generated, info


def test_import_and_export_give_every_tensor_back(source, exported):
    shards = sorted(path.name for path in exported.glob("*.safetensors"))
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    assert len(shards) > 3 and sorted(set(index["weight_map"].values())) == shards
    assert all((exported / shard).stat().st_size < 110_000 for shard in shards)
    assert changed(portable(tiny_hf.tensors(source)), tiny_hf.tensors(exported)) == []
    assert sorted(index["weight_map"]) == sorted(tiny_hf.tensors(exported))


def test_the_export_answers_as_its_source(source, exported):
    import torch

    want, got = answer(source), answer(exported)
    assert torch.equal(want[0], got[0]) and torch.equal(want[1], got[1])
    assert not got[2]["missing_keys"] and not got[2]["unexpected_keys"]
    assert got[1].shape[1] > want[0].shape[1]  # it has generated


def test_the_export_has_what_transformers_457_needs(exported):
    """By structure; with AMALIA_TRANSFORMERS_457 (a python that has 4.57) the next test loads it for real."""
    tokenizer = json.loads((exported / "tokenizer_config.json").read_text())
    config = json.loads((exported / "config.json").read_text())
    processor = json.loads((exported / "processor_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["extra_special_tokens"] == {"image_token": "<image>"}
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
    text = config["text_config"]
    assert text["rope_theta"] == text["rope_parameters"]["rope_theta"] == 20000.0
    assert processor["image_processor"]["image_processor_type"] == "LlavaNextImageProcessorFast"
    towers = [name for name in tiny_hf.tensors(exported) if name.startswith("vision_tower.")]
    assert towers and all(name.startswith("vision_tower.vision_model.") for name in towers)


if os.environ.get("AMALIA_TRANSFORMERS_457"):

    def test_transformers_457_answers_the_same(exported, tmp_path):
        import torch

        script = (
            "import sys, torch, transformers; sys.path.insert(0, sys.argv[1]); import test_round_trip as t\n"
            "assert transformers.__version__.startswith('4.57'), transformers.__version__\n"
            "logits, ids, info = t.answer(sys.argv[2])\n"
            "torch.save({'logits': logits, 'ids': ids, 'missing': list(info['missing_keys'])}, sys.argv[3])\n"
        )
        python, here = os.environ["AMALIA_TRANSFORMERS_457"], Path(__file__).parent
        paths = os.pathsep.join([str(here.parent), str(here.parent.parent)])
        stubs = tmp_path / "stubs"  # that environment has no pytest, and needs none
        stubs.mkdir()
        (stubs / "pytest.py").write_text(
            "class _Mark:\n    def __getattr__(self, n): return lambda *a, **k: (lambda f: f)\n"
            "mark = _Mark()\ndef fixture(*a, **k): return lambda f: f\n"
        )
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{stubs}{os.pathsep}{paths}", "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [python, "-c", script, str(here), str(exported), str(tmp_path / "out.pt")], check=True, env=environment
        )
        theirs, (logits, ids, _) = torch.load(tmp_path / "out.pt"), answer(exported)
        # The same torch, the same weights and the same pixels: 4.57 differs from 5 in masks and cache only.
        assert (theirs["logits"] - logits).abs().max() < 1e-5
        assert theirs["missing"] == [] and torch.equal(theirs["ids"], ids)


def test_a_bfloat16_folder_stays_bfloat16(tmp_path):
    import torch

    folder = tiny_hf.llava_next(tmp_path / "source", dtype=torch.bfloat16)
    out = round_trip(tmp_path, {"hf": str(folder)})
    assert {tensor.dtype for tensor in tiny_hf.tensors(out).values()} == {torch.bfloat16}
    assert changed(portable(tiny_hf.tensors(folder)), tiny_hf.tensors(out)) == []
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_tied_embeddings_stay_tied(tmp_path):
    config = tiny_hf.llava_config(text=tiny_hf.text_config(tie_word_embeddings=True), tie_word_embeddings=True)
    folder = tiny_hf.llava_next(tmp_path / "source", config=config)
    out = round_trip(tmp_path, {"hf": str(folder)})
    assert "language_model.lm_head.weight" not in tiny_hf.tensors(folder)
    assert changed(portable(tiny_hf.tensors(folder)), tiny_hf.tensors(out)) == []


def test_a_siglip_and_a_llama_folder_become_a_model(tmp_path):
    import torch

    siglip, llama = tiny_hf.siglip_both(tmp_path / "siglip"), tiny_hf.llama(tmp_path / "llama")
    out = round_trip(tmp_path, {"vision": str(siglip), "llm": str(llama)}, max_tiles=4, connector_seed=3)
    tensors, theirs, decoder = tiny_hf.tensors(out), tiny_hf.tensors(siglip), tiny_hf.tensors(llama)
    tower = {n.removeprefix("vision_tower."): t for n, t in tensors.items() if n.startswith("vision_tower.")}
    assert tower and all(torch.equal(theirs[name], tensor) for name, tensor in tower.items())
    text = {n.removeprefix("language_model."): t for n, t in tensors.items() if n.startswith("language_model.")}
    assert changed(decoder, text) == []
    config = json.loads((out / "config.json").read_text())
    assert len(config["image_grid_pinpoints"]) == 8 and config["image_token_index"] == 259
    _, generated, info = answer(out)
    assert not info["missing_keys"] and not info["unexpected_keys"] and generated.shape[1] > 10


def save_at(folder, checkpoint, layout):
    from megatron.bridge.training.model_load_save import save_megatron_model

    with model_of(folder, layout) as (_, models):
        save_megatron_model(models, checkpoint)


def export_only(checkpoint, out, assets):
    from nemo_amalia.bridge.export_hf import export_checkpoint

    export_checkpoint(checkpoint, out, hf_assets=assets)


@pytest.mark.parametrize("layout", [Layout(tp=2), Layout(pp=2)], ids=str)
def test_a_checkpoint_written_at_any_layout_exports_in_one_process(source, layout, tmp_path):
    checkpoint, out = str(tmp_path / "checkpoint"), tmp_path / "exported"
    launch(save_at, layout.ranks, {"folder": str(source), "checkpoint": checkpoint, "layout": layout})
    launch(export_only, 1, {"checkpoint": checkpoint, "out": str(out), "assets": str(source)})
    assert changed(portable(tiny_hf.tensors(source)), tiny_hf.tensors(out)) == []
