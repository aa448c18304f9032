"""Shards: WebDataset tar files that Energon reads, written, checked, counted and verified."""

from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.data.shards.metadataset import write_blend, write_epochized
from nemo_amalia.data.shards.write import ShardReport, image_suffix, write_shards

__all__ = ["ShardReport", "check_folder", "image_suffix", "write_blend", "write_epochized", "write_shards"]
