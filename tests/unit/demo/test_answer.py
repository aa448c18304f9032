"""demo/answer.py: asking in batches changes nothing, answers end where they should, files hold what was asked."""

import ast
import json
import shutil
import subprocess
import sys

import pytest

from demo import answer
from demo.errors import DemoError
from demo.pretraining.tiny import make_initial_hf
from demo.scenes.samples import eval_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("hf")
    make_initial_hf(path)
    return path


@pytest.fixture(scope="module")
def loaded(folder):
    return answer.load_model(folder)


@pytest.fixture(scope="module")
def samples():
    return list(eval_samples(20, seed=11, workers=1))


def test_batched_answers_equal_single_ones(loaded, samples):
    """Token ids are argmax in fp32: equal unless two logits tie to 1e-6. The batch mixes picture sizes."""
    mixed = samples[:12]
    assert len({len(s["question"]) for s in mixed}) > 4  # so that there is padding
    single = [answer.answer_batch(*loaded, [sample])[0] for sample in mixed]
    assert answer.answer_batch(*loaded, mixed) == single
    assert len(set(single)) > 3  # a model that says one thing to everything would prove nothing


def test_answers_come_back_in_the_samples_order(loaded, samples):
    said = []
    predictions = answer.answer_all(*loaded, samples, batch=6, say=said.append)
    last = answer.answer_batch(*loaded, [samples[-1]])[0]
    assert len(predictions) == 20 and predictions[-1] == last
    assert len(said) == 4 and "20/20" in said[-1]


def test_batches_hold_each_question_once_and_like_sizes(samples):
    batches = answer.batches(samples, size=6)
    assert sorted(i for batch in batches for i in batch) == list(range(20))
    assert max(map(len, batches)) == 6


def test_an_answer_ends_at_im_end(loaded, samples, monkeypatch):
    """The head is turned so that <|im_end|> always wins: nothing is left to say after one token."""
    import torch

    model, processor = loaded
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    weight = torch.zeros_like(model.lm_head.weight)
    calls = []

    def head(hidden):
        calls.append(hidden.shape[1])
        logits = torch.nn.functional.linear(hidden, weight)
        logits[..., end] = 1.0
        return logits

    monkeypatch.setattr(model.lm_head, "forward", head)
    assert answer.answer_batch(model, processor, samples[:3]) == ["", "", ""]
    assert len(calls) == 1


def test_command_writes_lines_and_pictures(folder, tmp_path, capsys):
    out = tmp_path / "run" / "answers.jsonl"
    assert answer.main(["--model", str(folder), "--samples", "10", "--seed", "3", "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    expected = list(eval_samples(10, seed=3, workers=1))
    assert len(records) == 10
    for record, sample in zip(records, expected, strict=True):
        assert list(record) == ["key", "kind", "source", "question", "answer", "prediction", "correct", "image"]
        assert all(record[name] == sample[name] for name in ("key", "kind", "source", "question", "answer"))
        assert (out.parent / record["image"]).read_bytes() == sample["images"][0]
        assert "<|im_end|>" not in record["prediction"]
    printed = capsys.readouterr().out
    assert "10/10" in printed and "scenes" in printed and "of 8 " in printed


def test_bad_input_is_one_clear_line(folder, tmp_path, capsys):
    def error_of(*words):
        assert answer.main([*words, "--seed", "3"]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        return error

    out = ["--out", str(tmp_path / "a.jsonl")]
    assert "no config.json" in error_of("--model", str(tmp_path), "--samples", "5", *out)
    assert "expected at least 1" in error_of("--model", str(folder), "--samples", "0", *out)
    (tmp_path / "file").write_text("")
    blocked = ["--out", str(tmp_path / "file" / "a.jsonl")]
    assert "cannot write" in error_of("--model", str(folder), "--samples", "1", *blocked)


def test_a_vocabulary_without_im_end_is_refused(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for path in other.glob("*.json*"):
        path.write_text(path.read_text().replace("<|im_end|>", "<|fim|>"))
    with pytest.raises(DemoError, match=r"lacks <\|im_end\|>"):
        answer.load_model(other)


def test_no_megatron_on_the_way():
    """In a fresh interpreter: what asks the questions knows neither Megatron nor our trainer."""
    code = "import sys, demo.answer, demo.scenes.samples, transformers; print({m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    assert "transformers" in loaded
    assert not loaded & {"megatron", "nemo_amalia", "nemo"}
