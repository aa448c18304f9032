"""Energon's view of the data path: cook, encode, pack, assemble.

What Energon 7.4.1 makes of an exception decides the shape of this file (energon/errors.py): SkipSample is
silent; any other goes to the loader's error handler, which here stops the run; and a raise while packing
loses the whole pack. So every drop is counted before SkipSample is raised, and a bad image is handled inside
the assembler.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from megatron.energon import (
    Cooker,
    PackingDataset,
    Sample,
    SavableDataset,
    SkipSample,
    TaskEncoder,
    edataclass,
    stateless,
)

from nemo_amalia.data.encoding.cookers import cook_conversation, sample_key
from nemo_amalia.data.encoding.encoders import SampleEncoder
from nemo_amalia.data.faults.board import QUARANTINED, REASONS, FaultBoard
from nemo_amalia.data.faults.quarantine import Quarantine
from nemo_amalia.data.loading import energon_internals as internals
from nemo_amalia.data.loading.assembly import PackAssembler, check_policy
from nemo_amalia.data.packing.algorithms import ALGORITHMS, padded_length, shuffled, under_filled
from nemo_amalia.data.samples import (
    BadSampleError,
    ConversationSample,
    Pack,
    PackedBatch,
    PreferenceSample,
    TokenizedPair,
    TokenizedSample,
)
from nemo_amalia.data.settings import StreamSettings


@edataclass
class CookedRecord(Sample):
    """A conversation, or a pair, with Energon's own fields; `failure` instead of it when the record is not one."""

    conversation: ConversationSample | PreferenceSample | None
    failure: BadSampleError | None


@edataclass
class EncodedRecord(Sample):
    """A tokenised sample with Energon's own fields (the restore key is what a checkpoint remembers)."""

    sample: TokenizedSample | TokenizedPair


@stateless
def cook_record(record: dict[str, Any], cook=cook_conversation) -> CookedRecord:
    """A raw record as `cook` makes it, or with what is wrong with it: one place, encode_sample, counts errors."""
    conversation, failure = None, None
    try:
        conversation = cook(record)
    except BadSampleError as error:
        failure = error
    return CookedRecord(
        __key__=sample_key(record),
        __restore_key__=record["__restore_key__"],
        __subflavors__=record.get("__subflavors__"),
        __sources__=record.get("__sources__"),
        conversation=conversation,
        failure=failure,
    )


class AmaliaTaskEncoder(TaskEncoder):
    """Cooks, encodes, packs and assembles, with every drop counted.

    Workers assemble where they decode (decode_device "cpu"); else they hand packs over undecoded, for the training
    process to assemble on its GPU. A bad image follows the assembler's on_bad_image, any other bad sample
    data.on_bad_sample. quarantine: samples to leave out.
    """

    decoder = None  # bytes arrive raw

    def __init__(
        self,
        encoder: SampleEncoder,
        assembler: PackAssembler,
        faults: FaultBoard,
        settings: StreamSettings,
        quarantine: Quarantine | None,
    ) -> None:
        super().__init__()
        internals.check_installed("megatron-energon")
        self.cookers = [Cooker(self._cook)]
        self.quarantine = quarantine
        self.encoder, self._cooked = encoder, encoder.cook
        self.assembler = assembler
        self.faults = faults
        self.capacity, self.packing_algorithm = settings.seq_length, settings.data.packing_algorithm
        self.segment_multiple = settings.segment_multiple
        self.seed = settings.seed
        self.on_bad_sample = check_policy("data.on_bad_sample", settings.data.on_bad_sample)
        self.decode_in_worker = settings.decode_device == "cpu"

    @stateless
    def _cook(self, record: dict[str, Any]) -> CookedRecord:
        self.faults.begin(f"reading {sample_key(record)}")
        return cook_record(record, self._cooked)

    @stateless  # nothing in it is random, and to seed every library once a sample costs a quarter of a worker
    def encode_sample(self, record: CookedRecord) -> EncodedRecord:
        source, shard = _origin(record)
        self.faults.count_in(1, source)
        if self.quarantine is not None and self.quarantine.holds(source, shard, record.__key__):
            self.faults.drop(record.__key__, QUARANTINED, "", source, shard)
            raise SkipSample
        try:
            if record.failure is not None:
                raise record.failure
            sample = self.encoder(record.conversation)
        except BadSampleError as error:
            self._refuse(record, error, source, shard)
        return EncodedRecord.derive_from(record, sample=replace(sample, dataset=source, shard=shard))

    def _refuse(self, record: CookedRecord, error: BadSampleError, dataset: str, shard: str) -> None:
        assert error.reason in REASONS, error.reason
        policy = self.assembler.on_bad_image if error.reason == "image" else self.on_bad_sample
        if policy == "drop":
            self.faults.drop(record.__key__, error.reason, str(error), dataset, shard)
            raise SkipSample from error
        source = record.__sources__[0] if record.__sources__ else None
        where = f" (in {source.dataset_path}/{source.shard_name})" if source else ""
        message = f"{error}{where}"
        self.faults.fail(message)
        raise BadSampleError(message, error.reason) from error

    def build_batch(self, dataset: SavableDataset, **settings: Any) -> SavableDataset:
        built = self._packing = super().build_batch(dataset, **settings)
        while self._packing is not None and not isinstance(self._packing, PackingDataset):
            self._packing = getattr(self._packing, "dataset", None)
        return built

    def select_samples_to_pack(self, samples: list[EncodedRecord]) -> list[list[EncodedRecord]]:
        # Seeded by the content: a pure function of the buffer, so that a resumed run packs alike.
        lengths = [padded_length(len(record.sample), self.segment_multiple) for record in samples]
        packs = self._but_under_filled(ALGORITHMS[self.packing_algorithm](lengths, self.capacity), lengths, samples)
        seed = f"{self.seed}/{samples[0].__key__}/{samples[-1].__key__}/{sum(lengths)}"
        return [[samples[index] for index in pack] for pack in shuffled(packs, seed)]

    def _but_under_filled(
        self, packs: list[list[int]], lengths: list[int], samples: list[EncodedRecord]
    ) -> list[list[int]]:
        """Samples of packs that are not full go back to Energon's buffer, the part of its state that a checkpoint has.

        Not at the end of the data, where the buffer is no longer full; nor of balanced packs, which are all alike.
        """
        if self.packing_algorithm == "balanced" or len(samples) < self._packing.buffer_size:
            return packs
        waiting = under_filled(packs, lengths, self.capacity)
        indices = sorted(i for which in waiting for i in packs[which])
        internals.reconsider(self._packing, [samples[i] for i in indices])
        return [pack for which, pack in enumerate(packs) if which not in waiting]

    @stateless
    def pack_selected_samples(self, samples: list[EncodedRecord]) -> PackedBatch | Pack:
        return self._assemble(samples)

    @stateless
    def batch(self, samples: list[EncodedRecord]) -> PackedBatch | Pack:
        return self._assemble(samples)

    def _assemble(self, records: list[EncodedRecord]) -> PackedBatch | Pack:
        pack = Pack(tuple(record.sample for record in records))
        if not self.decode_in_worker:
            return pack
        batch = self.assembler(pack)
        if batch is None:
            raise SkipSample
        return batch


def _origin(record: CookedRecord) -> tuple[str, str]:
    """(data set, shard): where Energon says it was read, else what the json calls its source."""
    if record.__sources__:
        return str(record.__sources__[0].dataset_path), record.__sources__[0].shard_name
    return (record.conversation.source if record.conversation else ""), ""
