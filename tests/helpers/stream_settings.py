"""StreamSettings and what is built of them from flat keywords, with small defaults; imports nothing heavy by itself."""

from dataclasses import fields

from nemo_amalia.config.schema import DataConfig

PIXELS = DataConfig.max_image_pixels
OF_DATA = {one.name for one in fields(DataConfig)}
SMALL = {"sample_kind": "conversations", "micro_batch_size": 1, "tiling": True, "packing": True}
SMALL |= {"segment_multiple": 1, "seed": 0}


def stream_settings(**values):
    """StreamSettings of flat values, those of DataConfig among them."""
    from nemo_amalia.data.settings import StreamSettings

    data = {name: values.pop(name) for name in OF_DATA & set(values)}
    return StreamSettings(data=DataConfig(**{"path": "-"} | data), **SMALL | values)


def make_collator(pad_token_id, image_token_id, geometry, **values):
    """A Collator of flat values."""
    from nemo_amalia.data.loading.collator import Collator

    settings = stream_settings(**values)
    return Collator(pad_token_id=pad_token_id, image_token_id=image_token_id, geometry=geometry, settings=settings)


def make_view(source, folder, *, samples, number, **values):
    """The product's own page of a source, of flat values."""
    from nemo_amalia.data.view import command

    return command.make_view(source, folder, stream_settings(**values), samples=samples, number=number)
