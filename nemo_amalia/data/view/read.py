"""Samples for looking at: read by Energon, cooked, encoded and packed by the code that trains.

Nothing is lost: a sample that was read has tokens, or the reason why training would refuse it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.energon import Cooker, TaskEncoder, WorkerConfig, get_loader, get_train_dataset, stateless

from nemo_amalia.data.encoding.cookers import cook_either
from nemo_amalia.data.encoding.encoders import ConversationEncoder, PreferenceEncoder
from nemo_amalia.data.encoding.hf_folder import Assets
from nemo_amalia.data.loading.task_encoder import CookedRecord, cook_record
from nemo_amalia.data.packing.algorithms import ALGORITHMS, shuffled
from nemo_amalia.data.samples import BadSampleError, ConversationSample, PreferenceSample, TokenizedSample
from nemo_amalia.data.shards.check import check_folder
from nemo_amalia.utils.files import read_json

SLICE = 100  # samples read in a row, as data.max_samples_per_sequence


@dataclass
class Seen:
    """One sample that was read: `tokens`, or `reason` (one of faults.REASONS) and `message`. Of a preference pair the
    chosen answer with its prompt, or what is wrong with the pair.
    """

    key: str
    folder: str
    conversation: ConversationSample | None = None
    tokens: TokenizedSample | None = None
    reason: str = ""
    message: str = ""
    pair: bool = False

    def refuse(self, error: BadSampleError) -> None:
        """Training would not take it."""
        self.tokens, self.reason, self.message = None, error.reason, str(error)


@stateless
def _cook(record: dict[str, Any]) -> CookedRecord:
    return cook_record(record, cook_either)


class _Reader(TaskEncoder):
    """Bytes to conversations and pairs; the rest is done outside, where a refusal can be kept."""

    decoder = None
    cookers = [Cooker(_cook)]


def disagreements(assets: Assets) -> list[str]:
    """What the folder's files say differently: training reads config.json and the tokenizer; inference reads the
    processor and the generation config, too.
    """
    folder, config, chat, found = assets.folder, assets.config, assets.chat, []
    if config.image_token_index != chat.image_token_id:
        found.append(
            f"config.json's image_token_index is {config.image_token_index} and {chat.image_token} is token "
            f"{chat.image_token_id} of the tokenizer"
        )
    for name in ("processor_config.json", "preprocessor_config.json"):
        content = _json(folder / name)
        images = content.get("image_processor", content)
        theirs, ours = images.get("image_grid_pinpoints"), config.image_grid_pinpoints
        if theirs and [list(pair) for pair in theirs] != [list(pair) for pair in ours]:
            found.append(f"{name} has {len(theirs)} image_grid_pinpoints, config.json {len(ours)} or others")
        side = (images.get("crop_size") or {}).get("height")
        if side and side != config.vision_config.image_size:
            found.append(f"{name} cuts tiles of {side} pixels, the tower takes {config.vision_config.image_size}")
        patch = content.get("patch_size")
        if patch and patch != config.vision_config.patch_size:
            found.append(f"{name} counts patches of {patch} pixels, the tower has {config.vision_config.patch_size}")
    stops = _json(folder / "generation_config.json").get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops]
    end = chat.tokenizer.convert_tokens_to_ids(chat.end_of_turn)
    if stops != [None] and end not in stops:
        found.append(f"generation_config.json stops at {stops}, a turn ends with {chat.end_of_turn} ({end})")
    return found


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def read(source: str | Path, encoder: ConversationEncoder, number: int, seed: int) -> tuple[list[Seen], int]:
    """Samples in an order that depends on `seed`, and how many draws gave one that was there already.

    source: a folder of prepared shards, read at most once, or a metadataset .yaml, of which `number` samples are drawn
    by its weights; those that come again are counted and left out. Raises DataError when it is neither.
    """
    path = check_folder(source, "SOURCE")
    blended = path.is_file()
    dataset = get_train_dataset(
        str(path),
        worker_config=WorkerConfig(
            rank=0, world_size=1, num_workers=0, seed_offset=seed, global_error_handler=_stop_reading
        ),
        batch_size=None,
        shuffle_buffer_size=number,
        max_samples_per_sequence=SLICE,
        task_encoder=_Reader(),
        repeat=blended,  # Energon draws by weight from endless folders only
    )
    loader = get_loader(dataset, watchdog_timeout_seconds=None)
    loader.pin_memory = False
    found: dict[tuple[str, str], Seen] = {}
    again = 0
    for record in itertools.islice(loader, number):
        name = (str(record.__sources__[0].dataset_path), record.__key__)
        if name in found:
            again += 1
        else:
            found[name] = _encoded(record, encoder)
    if blended:
        _rename(found.values())
    return list(found.values()), again


def _rename(seen: Iterable[Seen]) -> None:
    """The folders of a blend may hold equal shard names with equal keys: the folder goes before them."""
    taken: set[str] = set()
    for one in seen:
        short, long = (f"{folder}/{one.key}" for folder in (Path(one.folder).name, one.folder))
        one.key = long if short in taken else short
        taken.add(one.key)


def _encoded(record: Any, encoder: ConversationEncoder) -> Seen:
    read, pair = record.conversation, isinstance(record.conversation, PreferenceSample)
    shown = read.conversations[0] if pair else read
    seen = Seen(record.__key__, str(record.__sources__[0].dataset_path), shown, pair=pair)
    try:
        if record.failure is not None:
            raise record.failure
        seen.tokens = PreferenceEncoder(encoder)(read).chosen if pair else encoder(read)
    except BadSampleError as error:
        seen.refuse(error)
    return seen


def _stop_reading(error: Exception, sample: Any, sources: list[Any] | None = None) -> None:
    """Energon would skip the sample, and the counts would not add up."""
    raise RuntimeError(f"sample {getattr(sample, '__key__', '?')} cannot be read ({type(error).__name__}: {error})")


def make_packs(samples: list[TokenizedSample], capacity: int, algorithm: str, seed: int) -> list[list[int]]:
    """The packs (indices into samples) that a packing buffer of these samples makes."""
    if not samples:
        return []
    return shuffled(ALGORITHMS[algorithm]([len(sample) for sample in samples], capacity), seed)
