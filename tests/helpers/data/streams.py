"""Helpers for tests of the data streams: take micro-batches, compare them, write samples that must be dropped."""

import torch
from chatml import conversation, picture
from stream_settings import PIXELS, stream_settings

from nemo_amalia.data.encoding.encoders import ConversationEncoder
from nemo_amalia.data.encoding.hf_folder import ModelFormat
from nemo_amalia.data.loading import energon_stream, index_stream
from nemo_amalia.data.packing import command
from nemo_amalia.data.shards.write import write_shards


def conversation_encoder(chat, geometry, max_length, tiling=True, max_image_pixels=PIXELS):
    return ConversationEncoder(chat, geometry, max_length, tiling=tiling, max_image_pixels=max_image_pixels)


def _split(values):
    """(settings, format, ranks) of flat keywords."""
    ranks = {name: values.pop(name) for name in ("dp_rank", "dp_size") if name in values}
    mean, std = values.pop("image_mean", [0.5] * 3), values.pop("image_std", [0.5] * 3)
    form = ModelFormat(values.pop("chat"), values.pop("geometry"), mean, std)
    return stream_settings(**values), form, ranks


def build_loader(path, **values):
    """The product's own, of flat keywords."""
    settings, form, ranks = _split(values)
    return energon_stream.build_loader(path, settings, form, **ranks)


def build_index_loader(index, path, **values):
    """The product's own, of flat keywords."""
    settings, form, ranks = _split(values)
    return index_stream.build_index_loader(index, path, settings, form, **ranks)


def make_index(source, assets, out, **values):
    """The product's own, of flat keywords."""
    own = {name: values.pop(name) for name in ("window", "algorithm", "workers", "say") if name in values}
    return command.make_index(source, assets, out, stream_settings(**values), **own)


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
