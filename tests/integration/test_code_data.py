"""The four code data sets: `amalia-data NAME run` from CodeSearchNet's format to shards, with the models of
conf/data_prep/models/local.yaml at a scripted server; answers run in plain Python."""

import collections
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import code_samples
import pytest
import tiny_hf
from launcher import launch
from model_double import ModelDouble
from PIL import Image
from sandboxed import needs_sandbox
from stream_settings import PIXELS
from tiny_checkpoint import write_checkpoint

from data_prep import cli
from data_prep.code.recheck import LETTER_BLOCK, verify
from data_prep.engine.ledger import Ledger
from data_prep.rendering.gallery import chosen, main
from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.shards.metadataset import write_blend
from nemo_amalia.data.shards.totals import scan
from nemo_amalia.utils.errors import UserError

pytestmark = needs_sandbox
SMALL = ["seed=0", "executor.workers=1", "sandbox.limits.wall_seconds=30.0", "sandbox.limits.cpu_seconds=1"]


def made(name: str, folder: Path, *overrides: str) -> tuple[dict, dict[str, dict], dict[str, bytes]]:
    """(report, json by key, tar files by name) of a data set made in `folder`."""
    out = folder / "out"
    folder.mkdir(exist_ok=True)
    words = [*SMALL, f"run_dir={folder / 'run'}", f"out={out}", *overrides]
    if "pt_simple" not in name:
        words.append(f"functions.files=[{code_samples.write_corpus(folder)}]")
    with ModelDouble(code_samples.ScriptedModels().reply) as double:
        if name != "simple_code_ocr":  # it asks no model
            words.append(f"models.servers.local.url={double.url}")
        assert cli.main([name, "run", *words]) == 0
    samples, tars = {}, {}
    for file in sorted(out.glob("*.tar")):
        tars[file.name] = file.read_bytes()
        with tarfile.open(file) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                if member.name.endswith(".json"):
                    samples[member.name.removesuffix(".json")] = json.loads(data)
                else:
                    assert Image.open(io.BytesIO(data)).size[0] > 50
    return json.loads((out / "data_prep.json").read_text()), samples, tars


def dropped(report: dict) -> collections.Counter:
    """Drops by reason in all phases; and that counts reconcile at each step."""
    counts: collections.Counter = collections.Counter()
    for phase in report["phases"]:
        for part in filter(None, (phase["barrier"], phase["ledger"])):
            ledger = Ledger.from_json(part)
            ledger.check(phase["name"], ledger.records)
            counts += ledger.dropped()
    return counts


def text_of(sample: dict) -> tuple[str, str]:
    """(question, answer)."""
    user, assistant = sample["messages"]
    assert user["content"][0] == {"type": "image"}
    return user["content"][1]["text"], assistant["content"]


def plain(code: str) -> str | None:
    """As the check's own output, by an interpreter without a sandbox."""
    return code_samples.plain_output(code)


def test_simple_code_ocr(tmp_path):
    report, samples, _ = made("simple_code_ocr", tmp_path, "functions.languages=[python]", "fenced=0.5")
    assert dropped(report) == {
        "licence_unknown": 1, "licence_not_permissive": 1, "syntax": 1, "too_many_lines": 1, "duplicate": 1,
    }  # fmt: skip
    codes = {code for _, code, _ in code_samples.FUNCTIONS.values()}
    for sample in samples.values():
        _, answer = text_of(sample)
        assert answer.removeprefix("```python\n").removesuffix("\n```") in codes
        assert sample["provenance"]["licence"] in ("MIT", "Apache-2.0", "BSD-3-Clause", "ISC")
    assert len(samples) == len(codes) - 5 and {s["language"] for s in samples.values()} == {"pt-PT", "en"}


def test_sepic(tmp_path):
    report, samples, tars = made("sepic", tmp_path / "a")
    counts = dropped(report)
    expected = {
        "licence_unknown": 1, "licence_not_permissive": 1, "syntax": 1, "method": 1,
        "not_self_contained": 1, "too_many_lines": 1, "duplicate": 1, "invocation_of_something_else": 1,
        "limit_cpu": 2, "not_deterministic": 3, "raised": 3,
    }  # fmt: skip
    assert {name: counts[name] for name in expected} == expected and counts["recheck"] == 0
    proposed = {
        code_samples.plain_output(f"import math\n{code}\nprint({call})")
        for name, (_, code, calls) in code_samples.FUNCTIONS.items()
        if name in ("clamp", "count_vowels", "running_sums", "hypotenuse", "rotate")
        for call in calls
        if call not in ("count_vowels(12)", "rotate([], 1)", "other(1)") and "open" not in call
    }
    for sample in samples.values():
        _, answer = text_of(sample)
        assert answer.rstrip("`\n").rpartition("```\n")[2] in proposed
        assert sample["provenance"]["prompts"][0].startswith("code/")
    again = made("sepic", tmp_path / "b")[2]
    assert again == tars, "the same seed gives byte-equal shards"


def test_pt_outputs_to_code(tmp_path):
    report, samples, _ = made("pt_outputs_to_code", tmp_path)
    counts = dropped(report)
    assert counts["recheck"] == 0 and len(samples) >= 6
    for sample in samples.values():
        question, answer = text_of(sample)
        options = {letter: text for letter, _, text in LETTER_BLOCK.findall(question)}
        outputs = {letter: plain(text) for letter, text in options.items()}
        assert len(set(outputs.values())) == 4, "each option prints something of its own"
        (letter,) = [letter for letter in options if letter in answer.replace("Answer", "")]
        verify("choose_code", question, answer, options[letter], plain)


def test_pt_simple_code_outputs(tmp_path):
    shares = ["formats.yes_no=0.5", "formats.direct=0.25", "formats.multiple_choice=0.25"]
    report, samples, _ = made("pt_simple_code_outputs", tmp_path, "snippets.requests=4", *shares)
    counts = dropped(report)
    assert counts["recheck"] == 0 and counts["duplicate"] > 0
    assert {"not_deterministic", "no_print", "raised", "too_many_lines"} <= set(counts)
    said = collections.Counter(
        text_of(sample)[1].split("\n")[0].rstrip(".").split(",")[0][:3] for sample in samples.values()
    )
    yes, no = said["Sim"] + said["Yes"], sum(count for word, count in said.items() if word in ("Não", "No", "No."))
    assert yes == no > 0, "balanced exactly"
    assert len(samples) > 2 * yes, "and other formats are there"
    chat = ChatFormat(tiny_hf.tokenizer())
    for key, sample in samples.items():  # as training reads it
        ids, mask = chat.encode(sample["messages"], [7], key)
        learned = chat.tokenizer.decode(ids[mask == 1], skip_special_tokens=True)
        assert learned == text_of(sample)[1] and (ids == chat.image_token_id).sum() == 7


def test_a_gallery_of_shards(tmp_path):
    made("simple_code_ocr", tmp_path, "functions.languages=[python]")
    main([str(tmp_path / "a.png"), str(tmp_path / "out"), "each=4", "columns=2"])
    assert Image.open(tmp_path / "a.png").size[0] > 800
    assert len(chosen(tmp_path / "out", 4)) == 4
    with pytest.raises(UserError, match="holds no .tar shard"):
        chosen(tmp_path, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_amalia_train_takes_all_four(tmp_path):
    small = {
        "simple_code_ocr": ["functions.languages=[python]"],
        "sepic": [],
        "pt_outputs_to_code": [],
        "pt_simple_code_outputs": ["snippets.requests=4"],
    }
    written = {name: len(made(name, tmp_path / name, *words)[1]) for name, words in small.items()}
    for name, number in written.items():
        totals = scan(tmp_path / name / "out", max_image_pixels=PIXELS)
        assert number and not totals.refused, f"training would refuse samples of {name}: {totals.refused}"
    blend = write_blend([(tmp_path / name / "out", 1.0) for name in small], tmp_path / "code.yaml")
    launch(write_checkpoint, 1, {"folder": str(tmp_path)})
    command = [sys.executable, "-m", "nemo_amalia.cli", "train", "stage=sft_demo", "parallel=single", "precision=fp32"]
    command += [f"model.checkpoint={tmp_path}/checkpoint", f"data.path={blend}", f"run_dir={tmp_path}/run"]
    command += ["stage.seq_length=2048", "stage.global_batch_size=2", "stage.train_steps=4", "data.num_workers=1"]
    command += ["logging.interval=1", "data.packing_buffer_size=16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in metrics] == [1, 2, 3, 4] and sum(one["samples"] for one in metrics) > 4
