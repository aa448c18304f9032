"""Ask an exported model the held-out questions, with plain transformers: no Megatron, no code of this trainer.

python -m demo.answer --model DIR --samples 500 --seed 7 --out answers.jsonl
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

from PIL import Image

from demo import score, variety
from demo.errors import DemoError

MAX_NEW_TOKENS = 24  # the longest expected answer has 19, and its end
BATCH = 50  # also how often progress is said
_END = "<|im_end|>"


def load_model(folder: Path):
    """(model in fp32 and eval mode, processor that pads on the left) of a Hugging Face folder.

    Raises:
        DemoError: the folder is missing, or its vocabulary lacks <|im_end|>.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    if not (Path(folder) / "config.json").is_file():
        raise DemoError(f"{folder} holds no config.json: give a folder that `amalia export` or import made")
    logging.disable_progress_bar()
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"  # generation goes on from the last column
    if processor.tokenizer.convert_tokens_to_ids(_END) in (None, processor.tokenizer.unk_token_id):
        raise DemoError(f"the vocabulary of {folder} lacks {_END}, where an answer ends: it is not ChatML")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    return model, processor


def answer_batch(model, processor, samples: list[dict], max_new_tokens: int = MAX_NEW_TOKENS) -> list[str]:
    """Greedy answers to the samples' prompts (demo.scenes.samples: `prompt`, `images` as bytes), asked together."""
    import torch

    tokenizer = processor.tokenizer
    texts = [processor.apply_chat_template(s["prompt"], add_generation_prompt=True) for s in samples]
    images = [Image.open(BytesIO(data)).convert("RGB") for s in samples for data in s["images"]]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.convert_tokens_to_ids(_END),
            pad_token_id=tokenizer.pad_token_id,
        )
    answers = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


def batches(samples: list[dict], size: int = BATCH) -> Iterable[list[int]]:
    """Indices in batches of like picture size and question length: little padding is computed."""

    def likeness(index: int) -> tuple:
        sample = samples[index]
        return Image.open(BytesIO(sample["images"][0])).size, len(sample["question"])

    order = sorted(range(len(samples)), key=likeness)
    return [order[start : start + size] for start in range(0, len(order), size)]


def answer_all(
    model, processor, samples: list[dict], batch: int = BATCH, say: Callable[[str], None] = print
) -> list[str]:
    """The answers in the samples' order; says one line of progress a batch."""
    predictions: list[str] = [""] * len(samples)
    done = correct = 0
    begin = time.perf_counter()
    for indices in batches(samples, batch):
        for index, text in zip(indices, answer_batch(model, processor, [samples[i] for i in indices]), strict=True):
            predictions[index] = text
            correct += score.is_correct(text, samples[index]["answer"])
        done += len(indices)
        seconds = time.perf_counter() - begin
        say(f"[answers] {done:>4}/{len(samples)}  correct {correct / done:6.1%}  {done / seconds:.1f} a second")
    return predictions


def save_image(data: bytes, folder: Path, key: str) -> str:
    """Write the picture's bytes as they are; returns its path relative to `folder`'s parent."""
    suffix = "png" if data.startswith(b"\x89PNG") else "jpg"
    path = folder / f"{key}.{suffix}"
    path.write_bytes(data)
    return f"{folder.name}/{path.name}"


def write_answers(samples: list[dict], predictions: list[str], out: Path) -> list[dict]:
    """Write one JSON line a question to `out` and the pictures to `images/` beside it; returns the records.

    Raises:
        DemoError: the folder of `out` cannot be written.
    """
    folder = out.parent / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        records = []
        for sample, prediction in zip(samples, predictions, strict=True):
            record = {name: sample[name] for name in ("key", "kind", "source", "question", "answer")}
            record["prediction"] = prediction
            record["correct"] = score.is_correct(prediction, sample["answer"])
            record["image"] = save_image(sample["images"][0], folder, sample["key"])
            records.append(record)
        out.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    except OSError as error:
        raise DemoError(f"cannot write {out}: {error.strerror}: choose a folder that can be written") from error
    return records


def run(
    model_dir: Path, n: int, seed: int, out: Path, drawings: int = 0, say: Callable[[str], None] = print
) -> list[dict]:
    """Ask `n` held-out questions, and `drawings` about held-out drawings, of the model in `model_dir`.

    Writes `out`, prints the table; returns the records.

    Raises:
        DemoError: no questions asked for, no model there, or an output that cannot be written.
    """
    from demo.scenes.samples import drawing_questions, eval_samples

    if n < 1:
        raise DemoError(f"--samples is {n}, expected at least 1")
    model, processor = load_model(model_dir)
    say(f"[answers] {n + drawings} held-out questions to {model_dir}")
    samples = [*eval_samples(n, seed), *drawing_questions(drawings, seed)]
    records = write_answers(samples, answer_all(model, processor, samples, say=say), Path(out))
    say(score.table(records))
    if drawings:
        say(variety.line("drawings", variety.forms(records)))
    return records


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m demo.answer", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder of the model")
    parser.add_argument("--samples", type=int, default=500, help="number of held-out questions")
    parser.add_argument("--drawings", type=int, default=0, help="questions about held-out drawings, after them")
    parser.add_argument("--seed", type=int, default=7, help="seed of the held-out questions")
    parser.add_argument("--out", type=Path, required=True, help="answers.jsonl to write; images/ goes beside it")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # so small a model gains nothing from more, and loses ten-fold where cores are shared
    try:
        run(args.model, args.samples, args.seed, args.out, args.drawings, say=lambda line: print(line, flush=True))
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
