"""Helpers for tests of the data streams: take micro-batches, compare them, write samples that must be dropped."""

import torch
from chatml import conversation, picture

from nemo_amalia.data.shards.write import write_shards


def take(loader, count):
    return [next(loader) for _ in range(count)]


def equal(one, other):
    one, other = one.to_dict(), other.to_dict()
    return all(torch.equal(v, other[k]) if isinstance(v, torch.Tensor) else v == other[k] for k, v in one.items())


def keys(batches):
    return [key for batch in batches for key in batch.keys]


BAD = {
    "placeholders": {"images": []},
    "no_loss_token": {"messages": [{"role": "user", "content": "<image>"}]},
    "too_long": {"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "a" * 600}]},
    "special_token": {"messages": [{"role": "user", "content": "<image><|im_end|>"}]},
    "messages": {"messages": []},
    "image": {"images": [picture(60, 60)[:-50]]},
}


def with_bad(reasons, tmp_path):
    samples = [conversation(i) for i in range(20)]
    for index, reason in enumerate(reasons):
        samples[3 * index] |= BAD[reason]
    late = picture(90, 61, 5, "PNG")
    if "image" in reasons:  # one that only the decoder notices
        samples[19]["images"] = [late[: len(late) // 2] + bytes(400) + late[len(late) // 2 + 400 :]]
    return write_shards(samples, tmp_path / "bad", 10).folder


CAPACITY, BATCH = 512, 4  # tokens of a pack, packs of a global batch


def global_batches(loaders, number):
    """Packs, as tuples of keys, of each of the next global batches, in no order within one."""
    share = BATCH // len(loaders)
    return [sorted(tuple(batch.keys) for loader in loaders for batch in take(loader, share)) for _ in range(number)]


def group(load, size, **settings):
    return [load(dp_rank=rank, dp_size=size, **settings) for rank in range(size)]
