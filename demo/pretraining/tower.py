"""Trains the tiny tower by contrast with captions (sigmoid loss, as SigLIP) for `python -m demo.pretraining.base`.

Besides whole scenes against whole captions, every patch is contrasted with phrases for what it shows
("círculo vermelho", "letra G") and every patch of a thumbnail with phrases for the whole ("três formas"):
connectors read patches, so patches must carry the content. Text encoder and heads are thrown away.
"""

import random

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from demo.errors import DemoError
from demo.pretraining import tiny
from demo.pretraining.muon import Schedule, optimizers
from demo.scenes import questions, samples, scenes
from demo.scenes.words import ORDINALS

_GRID = tiny.TILE // tiny.PATCH


def _patch_phrases(boxes, size: tuple[int, int], view: tuple[float, float, float, float], whole) -> list[set[str]]:
    """For each of the view's patches, the phrases of what covers it; `whole` adds places and ordinals."""
    phrases: list[set[str]] = [set() for _ in range(_GRID * _GRID)]
    left, top, right, bottom = view
    step_x, step_y = (right - left) / _GRID, (bottom - top) / _GRID
    for order, (name, (x0, y0, x1, y1)) in enumerate(boxes):
        for index in range(_GRID * _GRID):
            px, py = left + index % _GRID * step_x, top + index // _GRID * step_y
            wide = min(x1, px + step_x) - max(x0, px)
            high = min(y1, py + step_y) - max(y0, py)
            letter = len(name) == 1
            enough_x = 0.45 * min(step_x, x1 - x0) if letter else 0.4 * min(step_x, x1 - x0)
            if wide > enough_x and high > 0.35 * min(step_y, y1 - y0):
                phrases[index].add(f"letra {name}" if letter else name)
                phrases[index] |= whole[order] if whole else set()
    for found in phrases:
        if not found:
            found.add("fundo")
    return phrases


def scene_record(index: int, seed: int, text_share: float = 0.45) -> dict:
    """A training-side picture: thumbnail and 2 tiles with content, patch phrases, facts and caption."""
    rng = random.Random(f"torre-{seed}-{index}")
    if rng.random() >= text_share:
        scene = scenes.random_scene(rng, "train")
        painting = scenes.paint(scene, rng)
        image, boxes, caption = painting.image, painting.boxes, questions.describe(scene)
        wholes, facts = _scene_facts(scene)
    else:
        image, lines, boxes = samples.text_panel(rng, "train", rng.choice((1, 2)))
        caption, facts = "Texto: " + ", ".join(lines) + ".", {"nenhuma forma", "com texto"}
        places = ["texto"] if len(lines) == 1 else [f"texto {scenes.row_place(row)}" for row in range(len(lines))]
        wholes = [
            {f"{ORDINALS[i]} letra {letter}", where}
            for line, where in zip(lines, places, strict=True)
            for i, letter in enumerate(line)
        ]
    views = [(0.0, 0.0, float(image.width), float(image.height))]
    half = [(x, y, x + 128.0, y + 128.0) for y in range(0, image.height, 128) for x in range(0, image.width, 128)]
    full = [v for v in half if any(b[2] > v[0] and b[0] < v[2] and b[3] > v[1] and b[1] < v[3] for _, b in boxes)]
    views += rng.sample(full, min(2, len(full)))
    fine = image.resize((image.width * tiny.TILE // 128, image.height * tiny.TILE // 128), Image.Resampling.BICUBIC)
    pixels, phrases = [], []
    for number, view in enumerate(views):
        if number == 0:
            tile = image.resize((tiny.TILE, tiny.TILE), Image.Resampling.BICUBIC)
        else:
            x, y = int(view[0] * tiny.TILE / 128), int(view[1] * tiny.TILE / 128)
            tile = fine.crop((x, y, x + tiny.TILE, y + tiny.TILE))
        pixels.append(np.asarray(tile).transpose(2, 0, 1))
        phrases.append([sorted(p) for p in _patch_phrases(boxes, image.size, view, wholes if number == 0 else None)])
    return {"pixels": pixels, "phrases": phrases, "facts": sorted(facts), "caption": caption}


def _scene_facts(scene: scenes.Scene) -> tuple[list[set[str]], set[str]]:
    wholes = [{f"{questions.full_name(t)} {scenes.place(scene.form, t.cell)}"} for t in scene.things]
    wholes += [
        {f"{ORDINALS[i]} letra {letter}", f"texto {scenes.row_place(scene.word_row)}"}
        for i, letter in enumerate(scene.word or "")
    ]
    facts = {f"{questions.number(len(scene.things), 'f')} formas", "com texto" if scene.word else "sem texto"}
    for shape, (gender, plural) in scenes.SHAPES.items():
        count = sum(t.shape == shape for t in scene.things)
        facts.add(f"{questions.number(count, gender)} {plural}")
    for colour in scenes.COLOURS:
        count = sum(t.colour == colour for t in scene.things)
        facts.add(f"{questions.number(count, 'f')} formas {scenes.colour_form(colour, 'f', True)}")
    return wholes, facts


class TextEncoder(nn.Module):
    """A caption's tokens to one unit vector: embedding, one bidirectional layer, mean."""

    def __init__(self, width: int):
        super().__init__()
        self.embed = nn.Embedding(tiny.VOCABULARY, width)
        self.place = nn.Parameter(torch.randn(128, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """ids, mask [texts, length] -> [texts, width], of norm 1."""
        x = self.layer(self.embed(ids) + self.place[: ids.shape[1]], src_key_padding_mask=~mask)
        x = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(x, dim=-1)


class Contrast(nn.Module):
    """The tower with its three heads (patch, facts of the whole, caption) and the text encoder."""

    def __init__(self):
        super().__init__()
        from transformers import SiglipVisionModel

        width = tiny.VISION["hidden_size"]
        self.tower = SiglipVisionModel(tiny.vision_config())
        self.text = TextEncoder(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, width) for name in ("patch", "facts", "caption")})
        self.scale = nn.ParameterDict({name: nn.Parameter(torch.tensor(2.3)) for name in self.heads})
        self.bias = nn.ParameterDict({name: nn.Parameter(torch.tensor(-6.0)) for name in self.heads})

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [views, 3, 48, 48] -> features [views, 16, width], the layer that LLaVA-NeXT reads."""
        x = self.tower(pixels.float() / 127.5 - 1.0, output_hidden_states=True).hidden_states[-1]
        return F.layer_norm(x, x.shape[-1:])

    def loss(self, name: str, image: torch.Tensor, text: torch.Tensor, match: torch.Tensor) -> torch.Tensor:
        """Sigmoid loss of every image row against every text row, summed over texts, mean over images."""
        seen = F.normalize(self.heads[name](image), dim=-1)
        logits = self.scale[name].exp() * seen @ text.T + self.bias[name]
        return F.binary_cross_entropy_with_logits(logits, match, reduction="sum") / len(image)


def _encode(model: Contrast, tokenizer, texts: list[str], device: str) -> torch.Tensor:
    made = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt").to(device)
    return model.text(made.input_ids, made.attention_mask.bool())


def _matches(rows: list[list[str]], names: dict[str, int], device: str) -> torch.Tensor:
    match = torch.zeros(len(rows), len(names))
    pairs = [(row, names[name]) for row, found in enumerate(rows) for name in found]
    match[tuple(torch.tensor(pairs).T)] = 1.0
    return match.to(device)


def batch_losses(model: Contrast, tokenizer, records: list[dict], device: str) -> dict[str, torch.Tensor]:
    """The three losses of a batch of scene records."""
    pixels = torch.from_numpy(np.stack([view for r in records for view in r["pixels"]])).to(device)
    features = model.patches(pixels)
    rows = [found for r in records for view in r["phrases"] for found in view]
    names = {name: i for i, name in enumerate(sorted({n for found in rows for n in found}))}
    fact_names = {name: i for i, name in enumerate(sorted({n for r in records for n in r["facts"]}))}
    captions = [r["caption"] for r in records]
    texts = _encode(model, tokenizer, [*names, *fact_names], device)
    whole = torch.tensor(np.cumsum([0] + [len(r["pixels"]) for r in records[:-1]])).to(device)
    thumbnails = features[whole]
    facts = _matches([r["facts"] for r in records], fact_names, device)
    each = facts.repeat_interleave(_GRID * _GRID, 0)
    same = torch.tensor([[a == b for b in captions] for a in captions]).float().to(device)
    return {
        "patch": model.loss("patch", features.flatten(0, 1), texts[: len(names)], _matches(rows, names, device)),
        "facts": model.loss("facts", thumbnails.flatten(0, 1), texts[len(names) :], each),
        "caption": model.loss("caption", thumbnails.mean(1), _encode(model, tokenizer, captions, device), same),
    }


@torch.no_grad()
def patch_accuracy(model: Contrast, tokenizer, records: list[dict], device: str) -> float:
    """Share of non-background patches whose best phrase is one of theirs."""
    pixels = torch.from_numpy(np.stack([view for r in records for view in r["pixels"]])).to(device)
    rows = [found for r in records for view in r["phrases"] for found in view]
    names = sorted({n for found in rows for n in found})
    seen = F.normalize(model.heads["patch"](model.patches(pixels).flatten(0, 1)), dim=-1)
    best = (seen @ _encode(model, tokenizer, names, device).T).argmax(-1).tolist()
    checked = [names[b] in found for b, found in zip(best, rows, strict=True) if found != ["fundo"]]
    return sum(checked) / len(checked)


def train_tower(tokenizer, records: list[dict], steps: int, device: str, seed: int = 0, batch: int = 48, log=print):
    """Train a fresh tower on the records; returns it in fp32 on the CPU."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    if len(records) < 128 + batch:
        raise DemoError(f"{len(records)} pictures are too few: 128 are kept for checking, and a step takes {batch}")
    checked, records = records[:128], records[128:]
    model = Contrast().to(device)
    made = optimizers(model, muon_lr=3e-3, adam_lr=2e-3)
    schedule, average = Schedule(made, steps), {}
    order: list[int] = []
    for step in range(steps):
        schedule.set(step)
        if len(order) < batch:
            order = rng.sample(range(len(records)), len(records))
        losses = batch_losses(model, tokenizer, [records[order.pop()] for _ in range(batch)], device)
        (losses["patch"] + 0.1 * losses["facts"] + 0.3 * losses["caption"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, loss in losses.items():
            average[name] = 0.95 * average.get(name, loss.item()) + 0.05 * loss.item()
        if step % 100 == 99:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in average.items())
            accuracy = patch_accuracy(model, tokenizer, checked, device)
            log(f"tower step {step + 1}/{steps}: {shown}; patches named {accuracy:.1%}")
    return model.tower.cpu()
