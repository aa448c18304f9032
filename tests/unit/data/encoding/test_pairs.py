"""Preference pairs: what is read and refused, what becomes of a pair in a pack, both loaders, resuming."""

import json
import os

import numpy as np
import pytest
import torch
from chatml import CHATML, chatml_tokenizer, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import ASKED, BAD, GOOD, pair, say
from stream_settings import make_collator, stream_settings
from streams import build_index_loader, conversation_encoder, equal, keys, make_index, take

from nemo_amalia.cli import main
from nemo_amalia.data.encoding.chat import ChatFormat
from nemo_amalia.data.encoding.cookers import cook_conversation, cook_preference
from nemo_amalia.data.encoding.encoders import PreferenceEncoder, encoder_of
from nemo_amalia.data.faults.board import REASONS
from nemo_amalia.data.images.geometry import ImageGeometry, grids_up_to
from nemo_amalia.data.packing.algorithms import ALGORITHMS, padded_length
from nemo_amalia.data.packing.index import read_index
from nemo_amalia.data.samples import BadSampleError, TokenizedPair, TokenizedSample
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError

CAPACITY, PAIRS = 512, 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    samples = (pair(i, images=i % 3, words=1 + i % 5) for i in range(PAIRS))
    return write_shards(samples, tmp_path_factory.mktemp("pairs") / "data", 10).folder


@pytest.fixture
def encode(chat, geometry):
    return PreferenceEncoder(conversation_encoder(chat, geometry, CAPACITY))


def record(sample):
    content = {name: sample.get(name) for name in ("messages", "chosen", "rejected", "source", "language")}
    content = {name: value for name, value in content.items() if value is not None}
    return {"__key__": sample["key"], "json": json.dumps(content).encode()} | {
        f"{i}.jpg": data for i, data in enumerate(sample["images"])
    }


def test_a_pair_is_two_segments_with_loss_on_the_answers_alone(encode, chat):
    earlier = [say("user", "Olá?"), say("assistant", "Sim."), say("user", "<image>E agora?")]
    made = encode(cook_preference(record(pair(4) | {"messages": earlier})))
    texts = "está a mostrar " * 2 + "4", "está mostrando " * 2 + "4"
    for segment, text in zip(made.segments, texts, strict=True):
        learned = chat.tokenizer.decode(segment.input_ids[segment.loss_mask == 1])
        assert learned == f"{text}<|im_end|>"  # not the newline after it, and nothing of the prompt
        assert chat.tokenizer.decode(segment.input_ids[-1:]) == "\n"
    where = [int(np.flatnonzero(segment.loss_mask)[0]) for segment in made.segments]
    assert where[0] == where[1] and (made.chosen.input_ids[: where[0]] == made.rejected.input_ids[: where[0]]).all()
    assert made.images is made.rejected.images and len(made.images) == 1
    assert len(made) == len(made.chosen) + len(made.rejected)


def test_whole_conversations_and_repeated_prompts_are_the_same_pair(encode):
    other = say("assistant", "Um ônibus.")
    parts = {"role": "user", "content": [{"type": "text", "text": "Quê?"}]}  # repeated without its image
    base = pair(1) | {"messages": [ASKED], "chosen": [GOOD], "rejected": [other]}
    forms = [
        base,
        base | {"chosen": [ASKED, GOOD], "rejected": [parts, other]},
        base | {"messages": "", "chosen": [ASKED, GOOD], "rejected": [ASKED, other]},
    ]
    first, *others = (encode(cook_preference(record(form))) for form in forms)
    for made in others:
        for one, same in zip(first.segments, made.segments, strict=True):
            assert (one.input_ids == same.input_ids).all() and (one.loss_mask == same.loss_mask).all()


@pytest.mark.parametrize("reason", BAD)
def test_every_refusal_names_the_pair_and_the_reason(encode, reason):
    changes, message = BAD[reason]
    with pytest.raises(BadSampleError, match=message) as caught:
        encode(cook_preference(record(pair(7) | changes)))
    assert caught.value.reason == reason in REASONS
    assert "p-00007" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chosen": []}, "no_answer"),
        ({"chosen": [say("assistant", "a"), say("user", "b"), say("assistant", "")]}, "no_answer"),
        ({"messages": "", "chosen": [say("user", "a"), GOOD], "rejected": [say("user", "b"), GOOD]}, "other_prompt"),
        ({"messages": "", "chosen": [GOOD], "rejected": [say("assistant", "b")]}, "messages"),
        ({"messages": [ASKED, GOOD]}, "messages"),
        ({"chosen": "Um autocarro."}, "messages"),
        ({"chosen": [say("assistant", "<image>")], "rejected": [GOOD]}, "no_answer"),
        ({"chosen": [say("assistant", "<image> a")], "rejected": [GOOD]}, "placeholders"),
        ({"images": [picture(30, 30)] * 2}, "placeholders"),
        ({"chosen": [{"role": "assistant", "content": [{"type": "text", "text": "Um autocarro."}]}],
          "rejected": [GOOD]}, "same_answers"),
    ],
)  # fmt: skip
def test_other_forms_of_bad_pairs(encode, changes, reason):
    with pytest.raises(BadSampleError, match="p-00003") as caught:
        encode(cook_preference(record(pair(3) | changes)))
    assert caught.value.reason == reason


def test_a_template_that_leaves_the_answer_out_gives_no_completion_token(geometry):
    template = CHATML.replace("{{ message['content'] }}", "{{ message['content'].split('</think>')[-1] }}")
    chat = ChatFormat(chatml_tokenizer(template))
    encode = PreferenceEncoder(conversation_encoder(chat, geometry, CAPACITY))
    with pytest.raises(BadSampleError, match=r"p-00001 \(rejected\) has no token to learn") as caught:
        encode(cook_preference(record(pair(1) | {"rejected": [say("assistant", "Hum...</think>")]})))
    assert caught.value.reason == "no_loss_token"


def test_records_of_the_other_kind_are_refused(chat, geometry):
    with pytest.raises(BadSampleError, match="is a preference pair.*train on it with stage=dpo"):
        cook_conversation(record(pair(1)))
    with pytest.raises(BadSampleError, match="'chosen, rejected'.*expected"):
        cook_preference({"__key__": "s-1", "json": b'{"messages": []}'})
    with pytest.raises(UserError, match="sample_kind is 'pairs': expected one of conversations, preferences"):
        encoder_of(chat, geometry, stream_settings(sample_kind="pairs", seq_length=8))


@pytest.fixture
def load_pairs(load):
    return lambda path=None, **changes: load(path, sample_kind="preferences", **changes)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_pairs_are_counted_by_reason_or_end_the_run(load_pairs, tmp_path, workers):
    samples = [pair(i) for i in range(20)]
    for index, (changes, _) in enumerate(BAD.values()):
        samples[2 * index + 1] |= changes
    path = write_shards(
        [{k: v for k, v in s.items() if v is not None} for s in samples if s["images"] != [b"\xff\xd8 nada"]],
        tmp_path / "bad",
        10,
    ).folder
    loader = load_pairs(path, num_workers=workers, on_bad_sample="drop", repeat=False)
    out = keys(loader)
    assert loader.faults.dropped() == {reason: 1 for reason in BAD if reason != "image"}
    assert len(out) == 19 - len(BAD) + 1 == loader.faults.totals()["samples_out"]
    assert {fault.key.rsplit("/")[-1] for fault in loader.faults.log()} == {
        samples[2 * index + 1]["key"] for index, reason in enumerate(BAD) if reason != "image"
    }
    with pytest.raises(BadSampleError, match=r"p-000\d\d.*\(in .*bad/shard-00000\d.tar\)$"):
        list(load_pairs(path, num_workers=workers, repeat=False))


def test_a_pack_of_pairs(load_pairs, encode, geometry):
    seen = []
    for batch in load_pairs(repeat=False):
        bounds, order, sizes = batch.cu_seqlens.tolist(), batch.image_order.tolist(), batch.image_sizes.tolist()
        assert batch.num_pairs == batch.num_samples == len(batch.keys) > 0
        images = iter(order)
        for number, key in enumerate(batch.keys):
            index = int(key[-5:])
            made = encode(cook_preference(record(pair(index, index % 3, 1 + index % 5))))
            stands = []
            for segment, start in zip(made.segments, bounds[2 * number : 2 * number + 2], strict=True):
                end = start + len(segment)
                assert (batch.tokens[0, start:end].numpy() == segment.input_ids).all()
                assert int(batch.loss_mask[0, start:end].sum()) == int(segment.loss_mask.sum())
                stands.append([next(images) for _ in segment.images])
                assert [sizes[which][::-1] for which in stands[-1]] == [list(size) for size in segment.image_sizes]
            assert stands[0] == stands[1]
            seen.append(index)
        assert next(images, None) is None and sorted(set(order)) == list(range(len(sizes)))
        assert len(order) == 2 * len(sizes) == 2 * len(batch.tiles_per_image)
    assert sorted(seen) == list(range(PAIRS))


def test_images_that_are_not_shared_come_once_for_each_segment(load_pairs):
    for shared, apart in zip(take(load_pairs(), 4), take(load_pairs(share_pair_images=False), 4), strict=True):
        assert apart.image_order is None and apart.num_pairs == shared.num_pairs
        assert torch.equal(apart.tokens, shared.tokens) and torch.equal(apart.cu_seqlens, shared.cu_seqlens)
        if len(shared.tiles_per_image):
            tiles = shared.tiles.split(shared.tiles_per_image.tolist())
            assert torch.equal(torch.cat([tiles[i] for i in shared.image_order]), apart.tiles)
            assert apart.tiles_per_image.tolist() == shared.tiles_per_image[shared.image_order].tolist()


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"segment_multiple": 8}])
def test_a_restored_loader_continues_with_the_same_pairs(load_pairs, options):
    loader = load_pairs(checkpoint_every_seconds=0, **options)
    take(loader, 5)
    state, expected = loader.state(), take(loader, 4)
    resumed = load_pairs(checkpoint_every_seconds=0, **options)
    resumed.restore(state)
    assert all(equal(a, b) for a, b in zip(expected, take(resumed, 4), strict=True))
    if "num_workers" not in options:
        state["depends_on"]["sample_kind"] = "conversations"
        with pytest.raises(UserError, match="sample_kind was 'conversations' and is 'preferences'"):
            load_pairs(**options).restore(state)


@pytest.mark.parametrize("multiple", [1, 8])
def test_the_index_gives_the_pairs_that_energon_gives(load_pairs, folder, assets, chat, geometry, tmp_path, multiple):
    index = tmp_path / "data.packs"
    head = make_index(folder, assets, index, seq_length=CAPACITY, sample_kind="preferences", segment_multiple=multiple)
    values = dict(
        geometry=geometry, chat=chat, seq_length=CAPACITY, image_mean=[0.5] * 3, image_std=[0.5] * 3, num_workers=0,
        segment_multiple=multiple, repeat=False,
    )  # fmt: skip
    streams = (
        build_index_loader(index, folder, sample_kind="preferences", **values),
        load_pairs(segment_multiple=multiple, repeat=False),
    )
    seen = [{}, {}]
    for found, batches in zip(seen, map(list, streams), strict=True):
        for batch in batches:
            tiles = batch.tiles.split(batch.tiles_per_image.tolist()) if len(batch.tiles_per_image) else ()
            order = iter(batch.image_order.tolist())
            for which, key in enumerate(batch.keys):
                start, _, end = batch.cu_seqlens[2 * which : 2 * which + 3].tolist()
                row = [getattr(batch, name)[0, start:end] for name in ("tokens", "labels", "loss_mask", "position_ids")]
                found[key] = [*row, *(tiles[next(order)] for _ in range(2 * (int(key[-5:]) % 3)))]
        assert sum(batch.num_pairs for batch in batches) == PAIRS
    assert sorted(seen[0]) == sorted(seen[1]) and len(seen[0]) == PAIRS
    for key, parts in seen[0].items():
        assert all(torch.equal(a, b) for a, b in zip(parts, seen[1][key], strict=True)), key
    assert head["totals"]["tokens"] == sum(b.num_tokens for b in build_index_loader(
        index, folder, sample_kind="preferences", **values))  # fmt: skip
    assert (read_index(index).lengths % multiple == 0).all()
    with pytest.raises(UserError, match="sample_kind was 'preferences' and is 'conversations'"):
        build_index_loader(index, folder, **values)


def test_the_index_counts_refusals_and_resumes_at_another_layout(folder, assets, chat, geometry, tmp_path):
    samples = [pair(i) | (BAD["same_answers"][0] if i == 3 else {}) for i in range(12)]
    path = write_shards(samples, tmp_path / "d", 4).folder
    head = make_index(path, assets, tmp_path / "i", seq_length=CAPACITY, sample_kind="preferences")
    assert head["totals"]["dropped"] == {"same_answers": 1} and head["totals"]["samples"] == 11
    assert "p-00003 has equal answers" in head["examples"]["same_answers"]
    values = dict(
        geometry=geometry, chat=chat, seq_length=CAPACITY, image_mean=[0.5] * 3, image_std=[0.5] * 3, num_workers=0,
        sample_kind="preferences",
    )  # fmt: skip
    one = build_index_loader(tmp_path / "i", path, **values)
    take(one, 2)
    two = [build_index_loader(tmp_path / "i", path, dp_rank=rank, dp_size=2, **values) for rank in (0, 1)]
    for loader in two:
        loader.restore(one.state())
    assert all(equal(a, b) for a, b in zip(take(one, 4), [next(two[i % 2]) for i in range(4)], strict=True))


def test_a_pair_whose_image_only_the_decoder_refuses_leaves_whole(load_pairs, tmp_path):
    late = picture(90, 61, 5, "PNG")
    torn = late[: len(late) // 2] + bytes(400) + late[len(late) // 2 + 400 :]
    samples = [pair(i) | ({"images": [torn]} if i == 2 else {}) for i in range(6)]
    loader = load_pairs(write_shards(samples, tmp_path / "torn").folder, repeat=False)
    batches = list(loader)
    assert sum(batch.num_pairs for batch in batches) == 5 and loader.faults.dropped() == {"image": 1}
    assert not any(key.endswith("p-00002") for key in keys(batches))


@given(st.data(), st.sampled_from(sorted(ALGORITHMS)), st.sampled_from([1, 2, 8]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_pair_is_never_split(data, algorithm, multiple, share):
    """Whatever the lengths: both segments are neighbours in one pack, each padded, and no pair is lost."""
    capacity = padded_length(data.draw(st.integers(24, 120)), multiple)
    half = capacity // 2 // multiple * multiple
    lengths = data.draw(st.lists(st.tuples(st.integers(2, half), st.integers(2, half)), min_size=1, max_size=20))
    made = []
    for number, (one, other) in enumerate(lengths):
        chosen, rejected = (
            TokenizedSample(f"{number}", "", np.full(n, 10 + number, np.int32), np.ones(n, np.uint8), (), (), True)
            for n in (one, other)
        )
        made.append(TokenizedPair(f"{number}", chosen, rejected, multiple))
    packs = ALGORITHMS[algorithm]([padded_length(len(each), multiple) for each in made], capacity)
    collate = make_collator(
        seq_length=capacity, pad_token_id=0, image_token_id=1, segment_multiple=multiple, share_pair_images=share,
        geometry=ImageGeometry(16, 8, grids_up_to(4, 16)),
    )  # fmt: skip
    assert sorted(i for pack in packs for i in pack) == list(range(len(made)))
    for pack in packs:
        batch = collate([made[i] for i in pack], [[] for _ in pack])
        bounds = batch.cu_seqlens.tolist()
        assert batch.keys == [str(i) for i in pack] and batch.num_pairs == len(pack)
        for place, index in enumerate(pack):
            for part, length in enumerate(lengths[index]):
                start, end = bounds[2 * place + part : 2 * place + part + 2]
                assert batch.tokens[0, start:end].tolist() == [10 + index] * length + [0] * (end - start - length)
                assert end - start == padded_length(length, multiple)


def test_pairs_do_not_mix_with_samples_and_need_packs(encode, geometry, load_pairs):
    made = encode(cook_preference(record(pair(0, images=0))))
    values = {"seq_length": 512, "pad_token_id": 0, "image_token_id": 1, "geometry": geometry}
    with pytest.raises(UserError, match="1 of 2 items are pairs"):
        make_collator(**values)([made, made.chosen], [[], []])
    with pytest.raises(UserError, match="1 of 1 items are pairs"):
        make_collator(**values, packing=False)([made], [[]])
    with pytest.raises(UserError, match="stage dpo needs stage.packing=true"):
        load_pairs(packing=False)


def test_the_commands_take_a_folder_of_pairs(folder, assets, tmp_path, capsys):
    out = tmp_path / "pairs.packs"
    words = ["data", "pack", str(folder), "--assets", str(assets), "--out", str(out), "--seq-length", str(CAPACITY)]
    assert main([*words, "--sample-kind", "preferences", "--workers", "0"]) == 0
    assert f"{PAIRS} pairs in 3 shards: {PAIRS} packed, 0 dropped" in capsys.readouterr().out
    out.unlink()
    assert main([*words, "--workers", "0"]) != 0
    assert "is a preference pair" in capsys.readouterr().err and not os.path.exists(out)
    page = tmp_path / "page.html"
    assert main(["data", "view", str(folder), "--assets", str(assets), "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert f"{PAIRS} of them are preference pairs" in printed
    assert printed.count("wrong:") == printed.count("wrong: The files of --assets disagree")  # the fixture's own
    assert page.stat().st_size > 10_000
