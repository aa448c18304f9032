"""Trains the tiny decoder on Portuguese text (demo/prose.py) for `python -m demo.base`."""

import random

import torch
from torch.nn import functional as F

from demo import prose, tiny
from demo.muon import Schedule, optimizers

_LENGTH, _ROWS = 192, 16  # tokens a row, rows a step


def documents(tokenizer, seed: int):
    """Endless token lists: scene documents (line by line, or as ChatML turns) and plain prose."""
    rng = random.Random(f"texto-{seed}")
    while True:
        kind = rng.random()
        if kind < 0.08:
            yield tokenizer(prose.prose(rng) + tiny.END).input_ids
            continue
        told, *after = prose.word_text(rng) if kind < 0.28 else prose.scene_text(rng)
        if rng.random() < 0.5:
            # Text in the shape of a chat: the description is given, the statements are said of it.
            text = f"{tiny.START}user\n{told}{tiny.END}\n"
            for line in after:
                head, _, tail = line.rpartition(":\n")
                lead = f"{tiny.START}user\n{head}:{tiny.END}\n" if head else ""
                text += f"{lead}{tiny.START}assistant\n{tail or line}{tiny.END}\n"
        else:
            text = "\n".join([told, *after]) + tiny.END
        yield tokenizer(text).input_ids


def batches(tokenizer, seed: int):
    """Endless [rows, length] token and segment tensors; whole documents, packed first-fit from a buffer."""
    stream = documents(tokenizer, seed)
    waiting = [next(stream)[:_LENGTH] for _ in range(48)]
    while True:
        tokens = torch.full((_ROWS, _LENGTH), tokenizer.pad_token_id)
        segments = torch.zeros(_ROWS, _LENGTH, dtype=torch.long)
        for row in range(_ROWS):
            at, segment = 0, 1
            while (fitting := next((p for p in waiting if at + len(p) <= _LENGTH), None)) is not None:
                waiting.remove(fitting)
                waiting.append(next(stream)[:_LENGTH])
                tokens[row, at : at + len(fitting)] = torch.tensor(fitting)
                segments[row, at : at + len(fitting)] = segment
                at, segment = at + len(fitting), segment + 1
        yield tokens, segments


def packed_loss(model, tokens: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss; attention and targets stay inside a segment, positions restart with it."""
    same = segments[:, :, None] == segments[:, None, :]
    causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril()
    index = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    starts = torch.where(F.pad(segments, (1, 0))[:, :-1] != segments, index, 0).cummax(1).values
    logits = model(
        input_ids=tokens,
        attention_mask=(same & causal)[:, None],
        position_ids=index - starts,
        use_cache=False,
    ).logits
    valid = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    return F.cross_entropy(logits[:, :-1][valid], tokens[:, 1:][valid])


def train_decoder(tokenizer, steps: int, device: str, seed: int = 0, start=None, log=print):
    """Train a fresh decoder, or `start` further; returns it in fp32 on the CPU."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = (start or LlamaForCausalLM(tiny.text_config(tokenizer))).to(device)
    made = optimizers(model, muon_lr=4e-3, adam_lr=3e-3)
    schedule, seen, average = Schedule(made, steps), 0, None
    stream = batches(tokenizer, seed)
    for step in range(steps):
        schedule.set(step)
        tokens, segments = next(stream)
        loss = packed_loss(model, tokens.to(device), segments.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen += int((segments > 0).sum())
        average = loss.item() if average is None else 0.95 * average + 0.05 * loss.item()
        if step % 50 == 49:
            log(f"decoder step {step + 1}/{steps}: loss {average:.3f}, {seen:,} tokens")
    return model.cpu()
