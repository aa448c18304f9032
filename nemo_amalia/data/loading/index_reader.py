"""A sample of an index of packs, read at its byte: with the quarantine and the policies of the stream without an index.

What is left out leaves its pack and is counted by folder and shard; the pack keeps its other samples and its place, so
that the position of a run means the same whatever was left out.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemo_amalia.data.encoding.encoders import SampleEncoder
from nemo_amalia.data.faults.board import QUARANTINED, FaultBoard
from nemo_amalia.data.faults.quarantine import Quarantine
from nemo_amalia.data.loading.assembly import check_policy
from nemo_amalia.data.packing.index import PackIndex
from nemo_amalia.data.samples import BadSampleError, TokenizedPair, TokenizedSample
from nemo_amalia.data.settings import StreamSettings
from nemo_amalia.data.shards.read import BLOCK, read_record
from nemo_amalia.utils.errors import DataError


class SampleReader:
    """shards: (folder, name) of each shard of the index. Of the settings: the policies and the quarantine."""

    def __init__(
        self,
        index: PackIndex,
        shards: list[tuple[Path, str]],
        encoder: SampleEncoder,
        faults: FaultBoard,
        settings: StreamSettings,
    ) -> None:
        self.index, self.shards, self.encoder, self.faults = index, shards, encoder, faults
        self.on_bad_sample = check_policy("data.on_bad_sample", settings.data.on_bad_sample)
        self.on_bad_image = check_policy("on_bad_image", settings.on_bad_image)
        self.quarantine = Quarantine(settings.data.quarantine) if settings.data.quarantine else None

    def __call__(self, row: int, pack: int) -> TokenizedSample | TokenizedPair | None:
        """None for a sample that is left out, and counted: quarantined, or bad under "drop". pack: for the error.

        Raises BadSampleError, in one line, under "fail".
        """
        folder, shard = self.shards[int(self.index.shards[row])]
        source, offset = str(folder), int(self.index.offsets[row]) * BLOCK
        key = f"{shard}/byte-{offset}"  # its name while it has not been read, and for good where it cannot be
        self.faults.begin(f"reading {key} of {source}")
        self.faults.count_in(1, source)
        try:
            if self._quarantined(source, shard, key):
                return None
            record = _record(folder, shard, offset, int(self.index.sizes[row]) * BLOCK)
            key = record["__key__"]
            self.faults.begin(f"reading sample {key} of {source}")
            if self._quarantined(source, shard, key):
                return None
            sample = self.encoder(self.encoder.cook(record))
            _check_length(sample, int(self.index.lengths[row]))
        except BadSampleError as error:
            self._refuse(error, key, source, shard, pack)
            return None
        return replace(sample, dataset=source, shard=shard)

    def _quarantined(self, source: str, shard: str, key: str) -> bool:
        if self.quarantine is None or not self.quarantine.holds(source, shard, key):
            return False
        self.faults.drop(key, QUARANTINED, "", source, shard)
        return True

    def _refuse(self, error: BadSampleError, key: str, source: str, shard: str, pack: int) -> None:
        """As AmaliaTaskEncoder does without an index: a bad image has a policy of its own."""
        policy = self.on_bad_image if error.reason == "image" else self.on_bad_sample
        if policy == "drop":
            self.faults.drop(key, error.reason, str(error), source, shard)
            return
        message = f"{source}: {error} (pack {pack} of the index)"
        self.faults.fail(message)
        raise BadSampleError(message, error.reason) from error


def _record(folder: Path, shard: str, offset: int, size: int) -> dict[str, Any]:
    """The parts of the sample at a byte of a shard. Raises BadSampleError where none can be read there."""
    try:
        descriptor = os.open(folder / shard, os.O_RDONLY)
        try:
            return read_record(descriptor, shard, offset, size)
        finally:
            os.close(descriptor)
    except (DataError, OSError) as error:
        raise BadSampleError(str(error), "record") from error


def _check_length(sample: TokenizedSample | TokenizedPair, expected: int) -> None:
    """Raises BadSampleError for a sample that is not as long as the index says: its pack might not hold it."""
    if len(sample) != expected:
        raise BadSampleError(
            f"sample {sample.key} has {len(sample):,} tokens and had {expected:,} when the index was made: its shard "
            "has changed; make the index again with `amalia data pack`"
        )
