"""Train the tiny decoder on Portuguese text (`python -m demo.pretraining.base`): prose, then also bags of words."""

import random
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from demo.pretraining import bags, tiny
from demo.pretraining.muon import Schedule, optimizers
from demo.scenes import prose

_LENGTH, _ROWS = 192, 16  # tokens a row, rows a step


@dataclass(frozen=True)
class Document:
    """Token ids, and for each placeholder among them, in order, the ids whose embeddings it sums."""

    ids: list[int]
    bags: list[list[int]]


def _turns(told: str, after: list[str]) -> str:
    """Text in the shape of a chat: the description is given, the statements are said of it."""
    text = f"{tiny.START}user\n{told}{tiny.END}\n"
    for line in after:
        head, _, tail = line.rpartition(":\n")
        lead = f"{tiny.START}user\n{head}:{tiny.END}\n" if head else ""
        text += f"{lead}{tiny.START}assistant\n{tail or line}{tiny.END}\n"
    return text


def text_document(tokenizer, rng: random.Random) -> Document:
    """A scene (line by line, or as ChatML turns), a written word, or plain prose."""
    kind = rng.random()
    if kind < 0.08:
        return Document(tokenizer(prose.prose(rng) + tiny.END).input_ids, [])
    told, *after = prose.word_text(rng) if kind < 0.28 else prose.scene_text(rng)
    text = _turns(told, after) if rng.random() < 0.5 else "\n".join([told, *after]) + tiny.END
    return Document(tokenizer(text).input_ids, [])


def bag_document(tokenizer, rng: random.Random) -> Document:
    """A scene told as bags of words (bags.py) in the first turn; first statement in the same turn or the next."""
    found, after = bags.document(rng)
    told = tiny.IMAGE_TOKEN * len(found)
    text = _turns(told, after)
    if rng.random() < 0.7:  # as a sample has it: the picture, a line break, what is wanted
        text = text.replace(f"{told}{tiny.END}\n{tiny.START}user\n", f"{told}\n")
    known = {bag: tokenizer(bag).input_ids for bag in set(found)}
    return Document(tokenizer(text).input_ids, [known[bag] for bag in found])


def documents(tokenizer, seed: int, bag_share: float):
    """Endless documents, `bag_share` of them with bags."""
    rng = random.Random(f"texto-{seed}")
    while True:
        with_bags = bag_share > 0 and rng.random() < bag_share
        yield (bag_document if with_bags else text_document)(tokenizer, rng)


def batches(tokenizer, seed: int, bag_share: float = 0.0):
    """Endless ([rows, length] tokens, the same of segments, bags); whole documents, packed first-fit from a buffer."""
    stream = documents(tokenizer, seed, bag_share)
    waiting = [next(stream) for _ in range(48)]
    while True:
        tokens = torch.full((_ROWS, _LENGTH), tokenizer.pad_token_id)
        segments = torch.zeros(_ROWS, _LENGTH, dtype=torch.long)
        found: list[list[int]] = []
        for row in range(_ROWS):
            at, segment = 0, 1
            while (fitting := next((d for d in waiting if at + len(d.ids[:_LENGTH]) <= _LENGTH), None)) is not None:
                waiting.remove(fitting)
                waiting.append(next(stream))
                ids = fitting.ids[:_LENGTH]
                tokens[row, at : at + len(ids)] = torch.tensor(ids)
                segments[row, at : at + len(ids)] = segment
                found += fitting.bags
                at, segment = at + len(ids), segment + 1
        yield tokens, segments, found


def embed(model, tokens: torch.Tensor, placeholder: int, found: list[list[int]]) -> torch.Tensor:
    """Embeddings [rows, length, width]; a placeholder's is the sum of its bag's, by the root of its size."""
    table = model.get_input_embeddings()
    vectors = table(tokens)
    if not found:
        return vectors
    sizes = torch.tensor([len(bag) for bag in found], device=tokens.device)
    ids = torch.tensor([token for bag in found for token in bag], device=tokens.device)
    owner = torch.arange(len(found), device=tokens.device).repeat_interleave(sizes)
    sums = torch.zeros(len(found), vectors.shape[-1], device=tokens.device).index_add(0, owner, table(ids))
    return vectors.masked_scatter((tokens == placeholder)[..., None], sums / sizes[:, None].sqrt())


def packed_loss(model, tokens, segments, found: list[list[int]], placeholder: int) -> torch.Tensor:
    """Mean next-token loss; attention and targets stay inside a segment, positions restart with it."""
    same = segments[:, :, None] == segments[:, None, :]
    causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril()
    index = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    starts = torch.where(F.pad(segments, (1, 0))[:, :-1] != segments, index, 0).cummax(1).values
    logits = model(
        inputs_embeds=embed(model, tokens, placeholder, found),
        attention_mask=(same & causal)[:, None],
        position_ids=index - starts,
        use_cache=False,
    ).logits
    valid = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0) & (tokens[:, 1:] != placeholder)
    return F.cross_entropy(logits[:, :-1][valid], tokens[:, 1:][valid])


def train_decoder(tokenizer, steps: int, device: str, seed: int = 0, bag_share: float = 0.0, start=None, log=print):
    """Train a fresh decoder, or `start` further; returns it in fp32 on the CPU."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = (start or LlamaForCausalLM(tiny.text_config(tokenizer))).to(device)
    made = optimizers(model, muon_lr=4e-3, adam_lr=3e-3)
    schedule, seen, average = Schedule(made, steps), 0, None
    stream = batches(tokenizer, seed, bag_share)
    for step in range(steps):
        schedule.set(step)
        tokens, segments, found = next(stream)
        loss = packed_loss(model, tokens.to(device), segments.to(device), found, tokenizer.image_token_id)
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
