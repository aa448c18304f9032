"""How long every sample of a shard is: by the encoder that training uses, so that it can never differ."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nemo_amalia.data.encoding.encoders import SampleEncoder
from nemo_amalia.data.samples import BadSampleError
from nemo_amalia.data.shards.read import BLOCK, read_record, sample_offsets


@dataclass
class ShardLengths:
    """Samples of one shard that can be trained on, in order; offsets and sizes in blocks of 512 bytes.

    lengths: what each takes of a pack (of a pair padding, too). tokens: without padding. hashes: 64 bits of each
    sample's name. dropped: the others, by reason. examples: the first message of each reason.
    """

    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    loss_tokens: list[int] = field(default_factory=list)
    image_tokens: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    samples_in: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


def measure_shard(folder: Path, shard: str, encoder: SampleEncoder, excluded: set[str]) -> ShardLengths:
    """Reads a shard from its first byte to its last. Raises DataError when it is not what its index says."""
    found = ShardLengths()
    offsets = sample_offsets(folder / shard)
    descriptor = os.open(folder / shard, os.O_RDONLY)
    try:
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            record = read_record(descriptor, shard, start, end - start)
            if record["__key__"] in excluded:
                continue
            found.samples_in += 1
            try:
                sample = encoder(encoder.cook(record))
            except BadSampleError as error:
                found.dropped[error.reason] += 1
                key = record["__key__"]  # of a mix, it does not say which folder
                found.examples.setdefault(error.reason, str(error).replace(key, f"{folder.name}/{key}", 1))
                continue
            found.offsets.append(start // BLOCK)
            found.sizes.append(-(-(end - start) // BLOCK))
            found.lengths.append(len(sample))
            found.tokens.append(sum(map(len, sample.segments)))
            # The collator asks for the next token of each: the first one is nobody's next.
            found.loss_tokens.append(sum(int(np.count_nonzero(s.loss_mask[1:])) for s in sample.segments))
            image = encoder.chat.image_token_id
            found.image_tokens.append(sum(int(np.count_nonzero(s.input_ids == image)) for s in sample.segments))
            digest = hashlib.blake2b(record["__key__"].encode(), digest_size=8).digest()
            found.hashes.append(int.from_bytes(digest, "little"))
    finally:
        os.close(descriptor)
    return found


_job: dict[str, Any] = {}  # what a forked worker inherits


def measure_shards(
    shards: list[tuple[Path, str, set[str]]], encoder: SampleEncoder, workers: int
) -> Iterator[ShardLengths]:
    """The shards, (folder, name, excluded samples), in order; `workers` processes read ahead, a few shards each."""
    if not workers:
        yield from (measure_shard(folder, shard, encoder, excluded) for folder, shard, excluded in shards)
        return
    import multiprocessing
    from collections import deque
    from concurrent.futures import ProcessPoolExecutor

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Rust threads do not survive the fork
    _job.update(shards=shards, encoder=encoder)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        ahead: deque = deque()
        try:
            for number in range(len(shards)):
                ahead.append(pool.submit(_measure, number))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _measure(number: int) -> ShardLengths:
    folder, shard, excluded = _job["shards"][number]
    return measure_shard(folder, shard, _job["encoder"], excluded)
