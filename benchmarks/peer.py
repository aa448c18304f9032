"""The loader that people write first: a map-style Dataset over the same shards, and the HF processor in collate_fn."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.corpus import MEAN, PATCH, PINPOINTS, STD, TILE, TOKENS, tokenizer


class Conversations(Dataset):
    """Number -> (messages, decoded images). Where everything lies is read once, before the clock starts."""

    def __init__(self, folder: Path) -> None:
        self.parts: dict[str, list[tuple[Path, int, int]]] = {}
        for shard in sorted(folder.glob("*.tar")):
            with tarfile.open(shard) as tar:
                for member in tar:
                    key = member.name.partition(".")[0]
                    self.parts.setdefault(key, []).append((shard, member.offset_data, member.size))
        self.keys = sorted(self.parts)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> tuple[list[dict[str, Any]], list[Image.Image]]:
        content, *images = (_read(*part) for part in self.parts[self.keys[number]])
        return json.loads(content)["messages"], [Image.open(io.BytesIO(data)).convert("RGB") for data in images]


def _read(shard: Path, offset: int, size: int) -> bytes:
    descriptor = os.open(shard, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def processor() -> Any:
    """transformers' LlavaNextProcessor with its fast image processor and the paper's geometry."""
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    words = tokenizer()
    side = {"height": TILE, "width": TILE}
    images = LlavaNextImageProcessor(
        size=side,
        crop_size=side,
        image_grid_pinpoints=[list(point) for point in PINPOINTS],
        image_mean=MEAN,
        image_std=STD,
        resample=Image.Resampling.BICUBIC,
    )
    return LlavaNextProcessor(
        images,
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=words.chat_template,
        image_token="<image>",
    )


class Collate:
    """Batch of the processor, with labels: everything that is neither padding nor image, which costs the peer less than
    a mask of the answers. padding: "longest" or "max_length" (16,384).
    """

    def __init__(self, padding: str) -> None:
        self.processor, self.padding = processor(), padding

    def __call__(self, samples: list[tuple[list[dict[str, Any]], list[Image.Image]]]) -> dict[str, torch.Tensor]:
        text = [self.processor.apply_chat_template(messages) for messages, _ in samples]
        images = [image for _, each in samples for image in each]
        batch = self.processor(
            text=text, images=images or None, padding=self.padding, max_length=TOKENS, return_tensors="pt"
        )
        image = batch["input_ids"] == self.processor.image_token_id
        labels = batch["input_ids"].masked_fill(image | (batch["attention_mask"] == 0), -100)
        return {**batch, "labels": labels}


def peer(folder: Path, padding: str, workers: int = 1, batch_size: int = 4) -> DataLoader:
    """One shuffled pass. batch_size 4: about as many samples as a pack of 16,384 tokens holds."""
    return DataLoader(
        Conversations(folder),
        batch_size,
        shuffle=True,
        num_workers=workers,
        collate_fn=Collate(padding),
        multiprocessing_context="fork" if workers else None,
    )
