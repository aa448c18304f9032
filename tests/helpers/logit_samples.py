"""Random samples for logits, and transformers' logits of them."""

import tiny_hf

IMAGE_ID = 3


def sample(geometry, sizes, tiling=True):
    """input_ids [1, S] with placeholders, pixel_values [T, C, H, W], image_sizes, tiles_per_image."""
    import torch

    generator = torch.Generator().manual_seed(len(sizes) + sum(w * 7 + h for w, h in sizes))
    ids = [*range(40, 50)]
    for number, (width, height) in enumerate(sizes):
        ids += [IMAGE_ID] * geometry.num_tokens(width, height, tiling) + [60 + number] * 3
    tiles = [geometry.num_tiles(width, height, tiling) for width, height in sizes]
    side = tiny_hf.TILE
    pixels = torch.randn(sum(tiles), 3, side, side, generator=generator) if sizes else None
    return torch.tensor([ids + [*range(100, 110)]]), pixels, [(h, w) for w, h in sizes], tiles


def hf_logits(model, ids, pixels, sizes, tiles):
    """transformers' own forward: pixel_values padded to the largest number of tiles, as its processor gives them."""
    import torch

    if pixels is None:
        return model(ids).logits
    images = pixels.split(tiles)
    padded = torch.nn.utils.rnn.pad_sequence(images, batch_first=True)
    return model(ids, pixel_values=padded, image_sizes=torch.tensor(sizes)).logits
