import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chatml import chatml_tokenizer  # noqa: E402

from nemo_amalia.data.chat import ChatFormat  # noqa: E402
from nemo_amalia.data.image_geometry import ImageGeometry, grids_up_to  # noqa: E402


@pytest.fixture(scope="session")
def tokenizer():
    return chatml_tokenizer()


@pytest.fixture(scope="session")
def chat(tokenizer):
    return ChatFormat(tokenizer)


@pytest.fixture(scope="session")
def geometry():
    """Tiles of 32 pixels with 4x4 patches, at most 4 tiles."""
    return ImageGeometry(32, 8, grids_up_to(4, 32))


@pytest.fixture(scope="session")
def assets(tmp_path_factory, tokenizer, geometry):
    """A LLaVA-NeXT folder without weights: the tokenizer and the geometry of the fixtures above."""
    import tiny_hf

    folder = tmp_path_factory.mktemp("assets")
    vision = tiny_hf.vision_config(image_size=geometry.tile, patch_size=geometry.patch)
    pinpoints = [list(canvas) for canvas in geometry.pinpoints]
    tiny_hf.llava_config(vision=vision, image_grid_pinpoints=pinpoints).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
