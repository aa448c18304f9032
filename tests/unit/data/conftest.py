import pytest
from chatml import chatml_tokenizer
from streams import build_loader

from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to


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


@pytest.fixture
def load(request, chat, geometry):
    """build_loader with small settings; without a path it reads the module's `folder`."""
    opened = []

    def build(path=None, **changes):
        settings = {
            "geometry": geometry,
            "chat": chat,
            "seq_length": 512,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "num_workers": 0,
            "packing_buffer_size": 12,
            "shuffle_buffer_size": 8,
            "max_samples_per_sequence": 8,
        }
        opened.append(build_loader(request.getfixturevalue("folder") if path is None else path, **(settings | changes)))
        return opened[-1]

    yield build
    for loader in opened:
        loader.close()


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
