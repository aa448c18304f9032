"""Our token count against transformers' LlavaNextProcessor, in the paper's geometry. Exact: they are
integers.
"""

import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlavaNextImageProcessor, LlavaNextProcessor, PreTrainedTokenizerFast
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches, unpad_image

from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to

TILE, PATCH = 384, 16
PINPOINTS = grids_up_to(12, TILE)
GEOMETRY = ImageGeometry(TILE, PATCH, PINPOINTS)


@pytest.fixture(scope="module")
def processor():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")),
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    images = LlavaNextImageProcessor(
        size={"height": TILE, "width": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=[list(pinpoint) for pinpoint in PINPOINTS],
    )
    return LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
    )


# Where unpad_image's rounding to 7 digits decides: the float product falls just under a whole number of
# features.
ROUNDING = [
    (1056, 220),
    (205, 328),
    (396, 1056),
    (1128, 423),
    (235, 376),
    (893, 752),
    (176, 110),
    (1120, 700),
]


def sizes(count=2000):
    """Log-uniform sides: small, large and extreme aspect ratios; and every side near a multiple of the
    tile.
    """
    rng = random.Random(0)
    free = [(round(2 ** rng.uniform(0, 13)), round(2 ** rng.uniform(0, 13))) for _ in range(count - 408)]
    near = [tuple(TILE * rng.randint(1, 12) + rng.randint(-2, 2) for _ in "wh") for _ in range(400)]
    return ROUNDING + free + near


def test_two_thousand_sizes_cost_what_transformers_counts(processor):
    ours = [GEOMETRY.num_tokens(width, height, True) for width, height in sizes()]
    theirs = processor._get_num_multimodal_tokens([[height, width] for width, height in sizes()])
    assert len(ours) == 2000 and ours == theirs["num_image_tokens"]


def test_tiles_and_unpadding_are_those_of_the_model():
    pinpoints = [list(pinpoint) for pinpoint in PINPOINTS]
    for width, height in sizes()[::4]:
        assert GEOMETRY.num_tiles(width, height, True) == image_size_to_num_patches((height, width), pinpoints, TILE)
        rows, columns = GEOMETRY.grid(width, height)
        features = torch.arange(rows * 24 * columns * 24).view(1, rows * 24, columns * 24)
        kept = unpad_image(features, (height, width))
        unpadded = GEOMETRY.unpadded(width, height)
        assert tuple(kept.shape[1:]) == unpadded
        top, left = (rows * 24 - unpadded[0]) // 2, (columns * 24 - unpadded[1]) // 2
        cut = features[:, top : top + unpadded[0], left : left + unpadded[1]]
        assert torch.equal(kept, cut)


@pytest.mark.parametrize("size", [(640, 480), (333, 1000), (1500, 90), (384, 384)])
def test_the_whole_processor_expands_to_our_count(processor, size):
    width, height = size
    image = np.zeros((height, width, 3), dtype=np.uint8)
    encoded = processor(images=image, text="<image>", return_tensors="pt")
    assert (encoded["input_ids"] == processor.image_token_id).sum() == GEOMETRY.num_tokens(width, height, True)
    assert encoded["pixel_values"].shape[1] == GEOMETRY.num_tiles(width, height, True)


def test_a_single_tile_image_is_its_features_and_one_newline():
    # Stage 1: pack_image_features appends image_newline to an image of one tile; no processor path makes one.
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig
    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**small, image_size=TILE, patch_size=PATCH),
        text_config=LlamaConfig(**small, vocab_size=16),
        image_token_index=15,
    )
    model = LlavaNextModel(config)
    features = torch.randn(1, 576, 8)
    packed, lengths = model.pack_image_features([features], torch.tensor([[90, 80]]), "full", model.image_newline)
    assert lengths.tolist() == [GEOMETRY.num_tokens(80, 90, tiling=False)] == [577]
    assert torch.equal(packed[0][:576], features[0]) and torch.equal(packed[0][576], model.image_newline)
