"""Damaged bytes never end a worker: 20,000 mutations of each format are tiled or refused by name.

In a process of its own, as in training: a decoder that crashes would take the test with it; here it is an exit code.
They go in batches of sixteen with an undamaged picture, which must survive.
"""

import io
import multiprocessing
import random
import time

import numpy as np
import pytest
import torch
from PIL import Image
from streams import PIXELS

from nemo_amalia.data.images.decode import ImageError, TileMaker
from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.data.images.headers import read_header

MUTATIONS, BATCH = 20_000, 16
FORMATS = {
    "JPEG": {"quality": 80},
    "PNG": {},
    "WEBP": {"quality": 80},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
}


def encoded(kind):
    """Pictures of 24x20 pixels in one format: small, so that a mutation hits something."""
    rng, found = np.random.default_rng(0), []
    for _ in range(8):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((24, 20), Image.BICUBIC)
        buffer = io.BytesIO()
        coarse.save(buffer, kind, **FORMATS[kind])
        found.append(buffer.getvalue())
    return found


def mutated(data, rng):
    """Bytes flipped, overwritten, cut, inserted, doubled or moved."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, how = rng.randrange(len(data)), rng.randrange(6)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
        elif how == 2:
            del data[at : at + rng.choice((1, 4, 64))]
        elif how == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif how == 4:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
        else:
            data[at : at + 8] = data[: rng.randrange(1, 9)]
        if not data:
            return b"\0"
    return bytes(data)


def fuzz(kind, seed, answers):
    torch.set_num_threads(1)
    rng, sources = random.Random(seed), encoded(kind)
    maker = TileMaker(ImageGeometry(16, 8, grids_up_to(4, 16)), PIXELS)
    counts, start = {"tiled": 0, "refused": 0}, time.perf_counter()
    while sum(counts.values()) < MUTATIONS:
        batch = [mutated(rng.choice(sources), rng) for _ in range(BATCH)]
        results = maker([*batch, sources[0]], [True] * (BATCH + 1))
        assert isinstance(results.pop(), torch.Tensor), "the undamaged picture was lost"
        for data, result in zip(batch, results, strict=True):
            if torch.is_tensor(result):
                header = read_header(data, PIXELS)  # the tokens were counted by it
                rows, columns = maker.geometry.grid(header.width, header.height)
                assert len(result) == 1 + rows * columns and result.isfinite().all()
            else:
                assert isinstance(result, ImageError)
            counts["refused" if isinstance(result, ImageError) else "tiled"] += 1
    answers.put((counts, time.perf_counter() - start))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", FORMATS)
def test_no_mutation_ends_the_process(kind):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=fuzz, args=(kind, kind, answers))
    process.start()
    process.join(600)
    alive = process.is_alive()
    process.kill()
    assert not alive, "no end after 600 s"
    assert process.exitcode == 0
    counts, seconds = answers.get()
    print(f"{kind}: {counts} in {seconds:.0f} s")
    assert sum(counts.values()) >= MUTATIONS
    # Some of each, or the mutations are too mild or too harsh; a PNG has checksums, and few of its mutations pass.
    assert counts["refused"] > MUTATIONS // 50 and counts["tiled"] > 10
