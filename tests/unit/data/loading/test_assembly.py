"""Records, encoding and assembly, without Energon."""

import json

import pytest
from chatml import conversation, picture
from stream_settings import make_collator
from streams import PIXELS, conversation_encoder

from nemo_amalia.data.encoding.cookers import cook_conversation
from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.images.decode import TileMaker
from nemo_amalia.data.loading.assembly import PackAssembler
from nemo_amalia.data.samples import BadSampleError, ConversationSample, Pack
from nemo_amalia.utils.errors import UserError


def record(sample):
    parts = {f"{i}.jpg": data for i, data in enumerate(sample["images"])}
    return {"__key__": sample["key"], "json": _json(sample), **parts}


def _json(sample):
    return json.dumps({name: sample[name] for name in ("messages", "source", "language")}).encode()


@pytest.fixture
def encode(chat, geometry):
    return conversation_encoder(chat, geometry, max_length=400)


@pytest.fixture
def assemble(chat, geometry):
    def build(faults, **changes):
        collator = make_collator(
            seq_length=1024,
            pad_token_id=chat.pad_token_id,
            image_token_id=chat.image_token_id,
            geometry=geometry,
        )
        return PackAssembler(TileMaker(geometry, PIXELS), collator, faults, **changes)

    return build


def test_a_record_becomes_a_conversation():
    sample = conversation(3, images=2)
    cooked = cook_conversation(record(sample))
    assert cooked == ConversationSample("s-00003", sample["messages"], tuple(sample["images"]), "teste", "pt")
    single = {"__key__": "a", "json": _json(sample), "jpg": b"x"}
    assert cook_conversation(single).images == (b"x",)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"json": None}, "no json part"),
        ({"json": b"{"}, "JSONDecodeError"),
        ({"json": b"[]"}, "TypeError: it is a list"),
        ({"json": b'{"source": "x"}'}, "KeyError"),
        ({"2.png": b"x"}, r"numbered \[0, 2\]: expected 0 to 1"),
        ({"0.png": b"x"}, "two images numbered 0"),
        ({"left.png": b"x"}, "image part 'left.png'"),
    ],
)
def test_records_that_are_no_conversations_are_named(changes, text):
    content = record(conversation(1)) | changes
    content = {name: value for name, value in content.items() if value is not None}
    with pytest.raises(BadSampleError, match=text) as info:
        cook_conversation(content)
    assert info.value.reason == "record" and "s-00001" in str(info.value)


def test_tokens_of_a_conversation(encode, chat, geometry):
    sample = encode(cook_conversation(record(conversation(1, images=2))))
    assert len(sample) == len(sample.input_ids) == len(sample.loss_mask)
    needed = sum(geometry.num_tokens(w, h, True) for w, h in sample.image_sizes)
    assert (sample.input_ids == chat.image_token_id).sum() == needed


def test_bad_samples_are_named_with_their_reason(encode):
    def cooked(**changes):
        return cook_conversation(record(conversation(5) | changes))

    with pytest.raises(BadSampleError, match="sample s-00005 has [0-9,]+ tokens .* the pack holds 400") as info:
        encode(cook_conversation(record(conversation(5, words=60))))
    assert info.value.reason == "too_long"
    with pytest.raises(BadSampleError, match="image 0 of sample s-00005: JPEG .* truncated") as info:
        encode(cooked(images=[picture(50, 50)[:-99]]))
    assert info.value.reason == "image"
    with pytest.raises(BadSampleError, match="1 <image> placeholders and 2 images") as info:
        encode(cooked(images=[picture(50, 50)] * 2))
    assert info.value.reason == "placeholders"


def corrupt(data):
    """A PNG whose header is sound and whose pixels are not."""
    return data[: len(data) // 2] + bytes(400) + data[len(data) // 2 + 400 :]


def packed(encode, bad=()):
    samples = []
    for index in range(3):
        raw = conversation(index)
        if index in bad:
            raw["images"] = [corrupt(picture(90, 61, index, "PNG"))]
        samples.append(encode(cook_conversation(record(raw))))
    return Pack(tuple(samples))


def test_a_bad_image_costs_its_own_sample_only(encode, assemble):
    faults = FaultBoard(0)
    batch = assemble(faults)(packed(encode, bad=[1]))
    whole = assemble(FaultBoard(0))(packed(encode))
    assert batch.keys == ["s-00000", "s-00002"] and whole.keys == ["s-00000", "s-00001", "s-00002"]
    first = int(whole.cu_seqlens[1])
    assert batch.tokens[0, :first].tolist() == whole.tokens[0, :first].tolist()
    assert faults.dropped() == {"image": 1} and faults.totals()["samples_out"] == 2
    (fault,) = faults.log()
    assert fault.key == "s-00001" and "image 0 of sample s-00001: cannot be decoded" in fault.message


def test_a_pack_of_bad_images_gives_no_batch(encode, assemble):
    faults = FaultBoard(0)
    assert assemble(faults)(packed(encode, bad=[0, 1, 2])) is None
    assert faults.dropped() == {"image": 3}


def test_bad_images_can_stop_the_run(encode, assemble):
    with pytest.raises(BadSampleError, match="image 0 of sample s-00002"):
        assemble(FaultBoard(0), on_bad_image="fail")(packed(encode, bad=[2]))
    with pytest.raises(UserError, match="on_bad_image is 'ignore': expected one of fail, drop"):
        assemble(FaultBoard(0), on_bad_image="ignore")
