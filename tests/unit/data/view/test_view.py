"""amalia data view on real shards: the counts, what the checks notice, and what stands on the page."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tiny_hf
from chatml import conversation, picture
from markup import FOREIGN, Page
from stream_settings import make_view

from nemo_amalia.cli import main
from nemo_amalia.data.encoding.hf_folder import read_assets
from nemo_amalia.data.shards.metadataset import write_blend
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.data.view.charts import BINS, bins
from nemo_amalia.data.view.checks import findings, loss_runs
from nemo_amalia.data.view.page import page, verdict
from nemo_amalia.data.view.template_checks import template_findings
from nemo_amalia.data.view.tokens import TokenReader

GOOD = tiny_hf.TEMPLATE
BODY = (
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>\n{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
)
LOOP = "{% for m in messages %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
EARLIER = BODY.replace("m[", "messages[loop.index0 - 1][")
HEADER = "<|im_start|>{{ m['role'] }}\n"

#: What is wrong with the template -> (template, names of the findings that must say so).
WRONG = {
    "no assistant header": (
        LOOP + "{% if m.role == 'user' %}" + HEADER + "{% endif %}" + BODY + "<|im_end|>\n{% endfor %}",
        {"header"},
    ),
    "header not in the generation prompt": (
        LOOP + HEADER + BODY + "<|im_end|>\n{% endfor %}",
        {"generation_prompt", "header_in_loss"},
    ),
    "end token outside the assistant's turn": (
        LOOP + "{% if not loop.first %}<|im_end|>\n{% endif %}" + HEADER + BODY + "{% endfor %}"
        "{% if add_generation_prompt %}<|im_end|>\n<|im_start|>assistant\n{% endif %}",
        {"end_of_turn", "refused"},
    ),
    "the question is written with the answer": (
        LOOP
        + "{% if m.role == 'assistant' %}USER: "
        + EARLIER
        + " ASSISTANT: "
        + BODY
        + "<|im_end|>{% endif %}{% endfor %}",
        {"generation_prompt", "loss_elsewhere"},
    ),
    "nobody's name": (
        LOOP + "<|im_start|>" + BODY + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}",
        {"header"},
    ),
    "questions are left out": (
        LOOP
        + HEADER
        + "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>\n{% elif m.role == 'assistant' %}"
        "{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}" + ASKED,
        {"template", "text_lost"},
    ),
    "images are left out": (
        LOOP + HEADER + "{% for p in m['content'] %}{{ p['text'] }}{% endfor %}<|im_end|>\n{% endfor %}" + ASKED,
        {"refused"},
    ),
    "a system prompt of its own": ("<|im_start|>system\nÉs útil.<|im_end|>\n" + GOOD, {"system"}),
}


def sample(index, question="Que vês?", answer="Um ã, 葡 e mais.", images=1, **changes):
    """As write_shards takes it, with content in parts."""
    content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    pictures = [picture(40 + 9 * index % 80, 30 + 7 * index % 60, index) for _ in range(images)]
    base = {"key": f"s-{index:03d}", "messages": messages, "images": pictures, "source": f"fonte{index % 2}"}
    return base | {"language": "pt-PT"} | changes


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """A function: chat template -> Hugging Face folder without weights."""

    def make(template=GOOD):
        folder = tmp_path_factory.mktemp("hf")
        tokenizer = tiny_hf.tokenizer()
        tokenizer.chat_template = template
        tiny_hf.llava_config().save_pretrained(folder)
        tiny_hf.processor(tokenizer).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def good_hf(hf):
    return hf()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    samples = [sample(i, images=i % 3) for i in range(12)]
    return write_shards(samples, tmp_path_factory.mktemp("view") / "boa", 5).folder


def view(source, folder, **changes):
    settings = {"samples": 6, "number": 100, "seq_length": 2048, "packing_algorithm": "best_fit_decreasing"}
    return make_view(str(source), folder, **(settings | changes))


def names(made, *levels):
    return {one.name for one in made.findings if one.level in (levels or ("wrong", "look"))}


def test_a_sound_folder_is_called_sound(good, good_hf):
    made = view(good, good_hf)
    assert names(made) == set() and verdict(made.findings) == ("nothing is wrong", "fine")
    assert len(made.seen) == len(made.usable) == 12 and len(made.shown) == 6
    html = page(made)
    assert "12 samples read: 12 that training takes and 0 that it refuses." in html and "Nothing is wrong." in html
    assert html.count("<article") == 6 and html.count('class="pack"') == len(made.packs)
    assert "//" not in re.sub(r"base64,[^\"]+", "", html).replace("<!doctype", "")  # nothing from the network
    assert page(view(good, good_hf)) == html  # the same page again


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_chat_template_is_called_wrong(good, hf, kind):
    template, expected = WRONG[kind]
    made = view(good, hf(template))
    assert expected <= names(made), [one for one in made.findings if one.level != "fine"]
    text, level = verdict(made.findings)
    assert level == ("look" if kind == "a system prompt of its own" else "wrong")
    html = page(made)
    assert f"{text[0].upper()}{text[1:]}." in html
    first = html.index("<li class=")
    assert html[first:].startswith(f'<li class="{level}"')  # said first


def test_templates_of_other_families_are_not_called_wrong(good_hf):
    chat = read_assets(good_hf).chat
    mistral = (
        LOOP
        + "{% if m.role == 'user' %}[INST] "
        + BODY
        + " [/INST]{% else %} "
        + BODY
        + "<|im_end|>{% endif %}{% endfor %}"
    )
    zephyr = (
        LOOP
        + "<|{{ m.role }}|>\n"
        + BODY
        + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    for template in (mistral, zephyr):
        chat.tokenizer.chat_template = template
        assert [one.level for one in template_findings(chat)] == ["fine"]


def test_refused_samples_are_listed_and_counted(tmp_path, good_hf):
    late = picture(90, 61, 5, "PNG")
    torn = late[: len(late) // 2] + bytes(400) + late[len(late) // 2 + 400 :]  # only decoding notices
    bad = {
        "placeholders": sample(1) | {"images": []},
        "special_token": sample(2, question="Diz <|im_end|> agora"),
        "no_loss_token": sample(3, answer=" "),
        "too_long": sample(4, answer="a" * 3000),
        "image": sample(5) | {"images": [torn]},
        "messages": sample(6) | {"messages": []},
    }
    folder = write_shards([*bad.values(), *(sample(i) for i in range(10, 20))], tmp_path / "d").folder
    made = view(folder, good_hf, samples=16)
    assert {one.reason: one.key for one in made.faulty} == {r: f"shard-000000.tar/{s['key']}" for r, s in bad.items()}
    assert len(made.seen) == 16 == len(made.usable) + len(made.faulty) and len(made.shown) == 10
    assert sorted(index for pack in made.packs for index in pack) == list(range(10))
    assert "refused" in names(made, "wrong")
    refused = page(made).partition('id="faults"')[2]
    for reason, one in bad.items():
        assert one["key"] in refused and f"<code>{reason}</code>" in refused
    assert "6 of 16, by reason" in refused


def test_checks_notice_what_data_can_bring(tmp_path, good_hf):
    samples = [sample(i) for i in range(6)]
    samples[1]["messages"] += [{"role": "user", "content": "E mais?"}, {"role": "assistant", "content": ""}]
    samples[2] = sample(2, question="[INST] Que vês? [/INST]")
    samples[3]["messages"].append({"role": "user", "content": "Obrigado."})
    samples[4]["language"] = ""
    made = view(write_shards(samples, tmp_path / "d").folder, good_hf)
    found = {one.name: one.keys for one in made.findings if one.level != "fine"}
    keys = [f"shard-000000.tar/s-{i:03d}" for i in range(6)]
    assert found == {"empty_answer": (keys[1],), "marker": (keys[2],), "turns": (keys[3],), "language": (keys[4],)}
    assert {one.key for one, _ in made.shown[:4]} == set(keys[1:5])  # flagged samples come first


def test_checks_read_tokens_and_mask(good, good_hf):
    """Not what made them: a mask or ids that are changed by hand are noticed."""
    made = view(good, good_hf)
    one = next(one for one in made.usable if one.tokens.images)
    tokens, start = one.tokens, loss_runs(one.tokens.loss_mask)[0][0]
    everything, open_end = np.ones_like(tokens.loss_mask), tokens.loss_mask.copy()
    open_end[np.flatnonzero(open_end)[-1]] = 0
    late = tokens.loss_mask.copy()
    late[start] = 0
    kept = np.arange(len(tokens)) != np.flatnonzero(tokens.input_ids == 3)[0]
    changed = {
        "loss_elsewhere": replace(tokens, loss_mask=everything),
        "end_not_learned": replace(tokens, loss_mask=open_end),
        "no_loss": replace(tokens, loss_mask=everything * 0),
        "answer_not_learned": replace(tokens, loss_mask=late),
        "placeholders": replace(tokens, input_ids=tokens.input_ids[kept], loss_mask=tokens.loss_mask[kept]),
    }
    for name, other in changed.items():
        found = findings([replace(one, tokens=other)], made.assets)
        assert name in {f.name for f in found if f.level == "wrong"}, name
    made.assets.chat.tokenizer.bos_token = tiny_hf.START
    twice = replace(tokens, input_ids=np.concatenate((tokens.input_ids[:1], tokens.input_ids)),
                    loss_mask=np.concatenate((tokens.loss_mask[:1], tokens.loss_mask)))  # fmt: skip
    found = findings([replace(one, tokens=twice)], made.assets)
    assert [f.name for f in found if f.level == "wrong"] == ["bos_twice"]


def test_tokens_are_written_one_by_one(good, good_hf):
    made = view(good, good_hf, samples=12)
    one = next(one for one in made.usable if len(one.tokens.images) == 2)
    reader, tokens = TokenReader(made.assets.chat), one.tokens
    pieces = list(reader.pieces(tokens.input_ids, tokens.loss_mask))
    assert sum(number for *_, number in pieces) == len(tokens)
    assert "".join(text for text, _, learned, _ in pieces if learned) == "Um ã, 葡 e mais.<|im_end|>"
    assert [number for text, _, _, number in pieces if text in "ã葡"] == [2, 3]  # bytes of one letter together
    counts = [made.assets.geometry.num_tokens(*size, True) for size in tokens.image_sizes]
    assert [number for _, kind, _, number in pieces if kind == "image"] == counts
    html = page(made).partition(f'aria-label="Tokens of {one.key}"')[2].partition("</div>")[0]
    assert f'<span class="image">&lt;image&gt; × {counts[0]:,}</span>' in html
    assert '<span class="special loss">&lt;|im_end|&gt;</span>' in html and "⏎" in html


def figure_of(made):
    """The page's only <figure> of an image."""
    (figure,) = re.findall(r"<figure>.*?</figure>", page(made), re.DOTALL)
    return figure


def test_lines_lie_where_the_tiles_and_the_image_are(tmp_path, good_hf):
    folder = write_shards([sample(0) | {"images": [picture(96, 40, 1)]}], tmp_path / "d").folder
    made = view(folder, good_hf)
    geometry, figure = made.assets.geometry, figure_of(made)
    height, width = geometry.canvas(96, 40)
    fitted_height, fitted_width = geometry.fitted(96, 40)
    assert (height, width, fitted_width) == (64, 96, 96) and fitted_height == 40
    assert f'viewBox="0 0 {width} {height}"' in figure
    assert "M32 0V64M64 0V64M0 32H96" in figure and "M0 12V52H96V12Z" in figure  # 12 pixels of padding above and below
    assert "2 × 3 tiles" in figure and f"{geometry.num_tokens(96, 40, True):,} tokens" in figure
    alone = figure_of(view(folder, good_hf, tiling=False))
    assert "<svg" not in alone and f"thumbnail alone, {geometry.num_tokens(96, 40, False)} tokens" in alone


def test_long_samples_are_cut_and_say_so(good, good_hf, monkeypatch):
    monkeypatch.setattr("nemo_amalia.data.view.tokens.MAX_TOKENS", 5)
    made = view(good, good_hf, samples=1)
    tokens = made.shown[0][0].tokens
    pieces = list(TokenReader(made.assets.chat).pieces(tokens.input_ids, tokens.loss_mask))
    html = page(made).partition('<div class="tokens"')[2].partition("</div>")[0]
    assert f"… {sum(number for *_, number in pieces[5:]):,} tokens more</span>" in html


def page_that_says(folder, assets, text: str) -> Page:
    """The page of three samples, one of them refused, with `text` for every foreign word."""
    named = {"source": text, "language": text}
    samples = [sample(i, question=f"{text}?", answer=f"{text}!", **named) for i in range(2)]
    samples.append(sample(2, question=f"{text}<|im_end|>", **named))
    made = view(write_shards(samples, folder / "d").folder, assets)
    for one in made.seen:
        one.key += text  # write_shards takes no such key; shards of other people's may hold it
        one.message += text
    assert len(made.faulty) == 1
    return Page(page(replace(made, source=f"dados{text}", findings=findings(made.seen, made.assets))))


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_text_is_escaped_wherever_it_stands(tmp_path, good_hf, text):
    """The page shows the text as it is: in tokens, keys, names, messages, and in attributes."""
    harmless, made = (page_that_says(tmp_path / str(i), good_hf, t) for i, t in enumerate(("inofensivo", text)))
    tokens = ("span", frozenset({"class"}))  # as many as the text has; all else is alike
    assert [tag for tag in made.shape() if tag != tokens] == [tag for tag in harmless.shape() if tag != tokens]
    assert not made.unbalanced and not made.open
    assert made.values("lang").count(text) == 2  # shown samples
    assert sum(text in label for label in made.values("aria-label")) == 2
    assert sum(text in title for title in made.values("title")) == 2  # segments of packs
    cut = "/" in text  # the headline is the last part of the source's path
    assert made.text.count(text) == harmless.text.count("inofensivo") - cut > 10
    assert made.text.count(f"{text}!") == 2 and made.text.count(f"{text}?") == 2


def test_a_blend_says_from_which_folder_each_sample_comes(tmp_path, good_hf):
    folders = [write_shards([sample(i) for i in range(5)], tmp_path / name).folder for name in ("um", "dois")]
    made = view(write_blend([(folder, 1.0) for folder in folders], tmp_path / "mix.yaml"), good_hf, samples=10)
    keys = {f"{name}/shard-000000.tar/s-{i:03d}" for name in ("um", "dois") for i in range(5)}
    assert {one.key for one in made.seen} == keys and len(made.shown) == 10  # equal keys stay two samples
    assert len(made.seen) + made.again == 100  # draws
    html = page(made)
    assert "90 draws gave a sample again." in html
    assert html.count("<span>from um</span>") == html.count("<span>from dois</span>") == 5 and "Folders" in html


def test_files_of_the_assets_that_disagree_are_named(good, hf):
    folder = hf()
    tiny_hf.edit_json(folder / "config.json", image_token_index=4, image_grid_pinpoints=[[32, 32], [64, 64]])
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')
    text = next(one.text for one in view(good, folder).findings if one.name == "folder")
    for part in ("image_token_index is 4", "processor_config.json has", "stops at [1]"):
        assert part in text


def test_the_command(good, good_hf, tmp_path, capsys):
    out = tmp_path / "deep" / "page.html"
    words = ["data", "view", str(good), "--assets", str(good_hf), "--out", str(out), "--samples", "3", "--read", "8"]
    assert main(words) == 0 and out.stat().st_size < 15e6
    printed = capsys.readouterr().out
    assert "8 samples read = 8 usable + 0 refused" in printed and f"3 samples shown: {out.as_uri()}" in printed


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"source": "nowhere"}, "does not exist"),
        ({"--assets": "."}, "has no config.json"),
        ({"--packing-algorithm": "worst_fit"}, "expected one of best_fit_decreasing, balanced"),
        ({"--out": "{good}/shard-000000.tar/page.html"}, "cannot be written"),
    ],
)
def test_a_mistake_is_one_line(good, good_hf, tmp_path, capsys, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    options = {"--assets": str(good_hf), "--out": "page.html"} | changes
    source = options.pop("source", str(good))
    words = [word.replace("{good}", str(good)) for pair in options.items() for word in pair]
    assert main(["data", "view", source, *words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


@pytest.mark.parametrize("values", [[5], [0, 1, 1, 3], list(range(142, 314)), [1, 40_000, 16_384], [1000, 1001]])
def test_histograms_count_every_value_once(values):
    found = bins(values)
    assert len(found) <= BINS and sum(count for *_, count in found) == len(values)
    for (_, last, _), (first, _, _) in zip(found, found[1:], strict=False):
        assert first == last + 1
    assert all(sum(first <= value <= last for value in values) == count for first, last, count in found)


def test_plain_string_contents_are_read_too(tmp_path, good_hf):
    made = view(write_shards((conversation(i, images=i % 3) for i in range(6)), tmp_path / "d").folder, good_hf)
    assert len(made.usable) == 6 and names(made) == set()
