"""The stream that every run of tests/gpu reads. Imported in ranks alone: it imports Megatron Bridge."""

from dataclasses import dataclass

import tiny_hf
from fixed_batches import FixedBatches
from gpu_model import SEQ_LENGTH

IMAGE_ID = 3


@dataclass
class LongerBatches(FixedBatches):
    """tests/helpers/fixed_batches.py in rows of SEQ_LENGTH; segments in multiples of 4, which CP 2 needs."""

    def batch(self, group):
        collate = self.collator(SEQ_LENGTH, 4, packing=True)
        return collate([sample for sample, _ in group], [tiles for _, tiles in group])


def batches() -> LongerBatches:
    """Conversations with images, the same at every layout."""
    from nemo_amalia.data.images.geometry import ImageGeometry

    pinpoints = tuple((height, width) for height, width in tiny_hf.grids())
    geometry = ImageGeometry(tiny_hf.TILE, tiny_hf.PATCH, pinpoints)
    return LongerBatches(vocabulary=260, image_token_id=IMAGE_ID, geometry=geometry)
