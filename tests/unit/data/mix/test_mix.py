"""amalia data mix: the paper's numbers, the arithmetic of weights, and the command on real shards."""

import re
import shutil
import time
from dataclasses import replace

import pytest
import yaml
from chatml import conversation
from omegaconf import OmegaConf
from stream_settings import PIXELS

from nemo_amalia.cli import main
from nemo_amalia.config.compose import CONF
from nemo_amalia.data.mix.file import Source, mix_path, read_mix
from nemo_amalia.data.mix.plan import Row, plan, shares
from nemo_amalia.data.shards.totals import FILE
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError

STAGES = ("alignment", "sft", "dpo")
#: folder -> (samples, images a sample, words an answer): what the tests write
SIZES = {"tallyqa": (12, 1, 3), "iiit5k": (4, 2, 1), "pt_caps": (8, 1, 60)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    for name, (number, images, words) in SIZES.items():
        samples = ({**conversation(i, images, words), "key": f"{name}-{i}"} for i in range(number))
        write_shards(samples, folder / name, 5)
    return folder


@pytest.fixture
def mix_file(tmp_path):
    """The three sources of SIZES and one that is missing, with a limit of its own."""
    content = yaml.safe_load(mix_path("sft").read_text())
    wanted = {*SIZES, "pt_ocr"}
    content["sources"] = [source for source in content["sources"] if source["name"] in wanted]
    content["categories"] = {s["category"]: content["categories"][s["category"]] for s in content["sources"]}

    def write(**changes):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
        return path

    write.content = content
    return write


def amalia(capsys, *words):
    code = main(["data", "mix", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def cells(out):
    """Label -> its eight cells."""
    words = [line.split() for line in out.splitlines()]
    return {" ".join(line[:-8]): line[-8:] for line in words}


@pytest.mark.parametrize("stage", STAGES)
def test_categories_agree_with_the_paper(stage):
    """Sums of Table 1's samples round to its percentages, and Table 1 to the text's 4.7M."""
    mix = read_mix(mix_path(stage))
    whole = sum(source.samples for source in mix.sources)
    for category, printed in mix.categories.items():
        share = 100 * sum(source.samples for source in mix.sources if source.category == category) / whole
        assert round(share, 1) == printed, category
    assert {"alignment": 500_000, "sft": 4_657_456, "dpo": 200_000}[stage] == whole
    assert len(mix.sources) == {"alignment": 1, "sft": 37, "dpo": 2}[stage]


def test_the_daggers_of_table_1():
    assert sum(source.synthetic for source in read_mix(mix_path("sft")).sources) == 11


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_mix_repeats_of_its_stage_agrees(stage):
    path = CONF / "stage" / f"{stage}.yaml"
    if path.is_file():
        assert read_mix(mix_path(stage)).images.tiling == OmegaConf.load(path).get("tiling", True)


def rows_of(mix, sizes):
    """Rows of (samples, tokens a sample), two thirds of them image tokens."""
    return [
        Row(source, n, n * tokens / 3, n * tokens * 2 / 3)
        for source, (n, tokens) in zip(mix.sources, sizes, strict=True)
    ]


@pytest.fixture
def mix(mix_file):
    return read_mix(mix_file(max_repeat=100.0))


SIZE = [(100, 30.0), (50, 600.0), (350, 300.0), (500, 90.0)]


def test_by_samples_every_source_is_seen_repeat_times(mix):
    mix = replace(mix, sources=[replace(s, repeat=r) for s, r in zip(mix.sources, (1, 2, 0.5, 1), strict=True)])
    planned = plan(mix, rows_of(mix, SIZE))
    assert [row.epochs for row in planned] == pytest.approx([1, 2, 0.5, 1])
    assert [row.epochs for row in plan(mix, rows_of(mix, SIZE), passes=3)] == pytest.approx([3, 6, 1.5, 3])


def test_by_tokens_the_shares_are_of_tokens(mix):
    planned = plan(replace(mix, weights="tokens"), rows_of(mix, SIZE))
    assert [share for _, share in shares(planned).values()] == pytest.approx([0.1, 0.05, 0.35, 0.5])
    assert sum(row.draws for row in planned) == pytest.approx(1000)  # a pass has the same samples
    by_hand = [100 / 30, 50 / 600, 350 / 300, 500 / 90]
    assert [row.draws / 1000 for row in planned] == pytest.approx([part / sum(by_hand) for part in by_hand])


@pytest.mark.parametrize("weights", ["samples", "tokens"])
def test_shares_of_the_paper_do_not_ask_what_is_there(mix, weights):
    planned = plan(replace(mix, weights=weights, shares="paper", max_repeat=1e6), rows_of(mix, SIZE))
    listed = [source.samples for source in mix.sources]
    got = [pair[weights == "tokens"] for pair in shares(planned).values()]
    assert got == pytest.approx([samples / sum(listed) for samples in listed])


def test_limits_are_kept(mix):
    rows = rows_of(mix, SIZE)
    limited = replace(mix, sources=[replace(mix.sources[0], repeat=3.0, max_repeat=2.5), *mix.sources[1:]])
    with pytest.raises(UserError, match=rf"samples of {mix.sources[0].name} 3 times \(max_repeat 2.5\): lower repeat"):
        plan(limited, rows_of(limited, SIZE))
    assert plan(replace(mix, max_repeat=1.0), rows)  # exactly the limit is allowed
    with pytest.raises(UserError, match="4 times .* and 1 more: lower repeat or passes"):
        plan(replace(mix, max_repeat=1.0), rows, passes=4)
    with pytest.raises(UserError, match="passes is 0"):
        plan(mix, rows, passes=0)


def test_tokens_that_nobody_counted(mix):
    rows = rows_of(mix, SIZE)
    rows[2] = replace(rows[2], text_tokens=None)
    assert all(share is None for _, share in shares(plan(mix, rows)).values())
    with pytest.raises(UserError, match=rf"{rows[2].source.name} \(1 of 4 sources\) have none: add scan=true"):
        plan(replace(mix, weights="tokens"), rows)


def test_the_table_of_real_shards(capsys, root, mix_file):
    code, out, _ = amalia(capsys, f"mix={mix_file()}", f"root={root}")
    lines = cells(out)
    assert code == 0
    assert lines["tallyqa"][:5] == ["12", "98,700", "1.00", "50.00", "23.39"]  # 12 of 24 drawn; 98.7 of 422 in the file
    assert lines["pt_caps"][3] == "33.33" and lines["all"][0] == "24"
    # chatml.conversation: "pergunta i?", "resposta " * words + "i"; 4 characters a token, 5 tokens a turn
    characters = sum(len(f"pergunta {i}?") + len("resposta " * 3 + str(i)) for i in range(12))
    assert lines["tallyqa"][5] == f"~{characters / 4 + 24 * 5:,.0f}"
    assert float(lines["tallyqa"][6].replace(",", "")) >= 12 * 577  # exact: no ~
    assert out.startswith("  pt_ocr  missing; ") and "make it: amalia-data pt_ocr run" in out.splitlines()[0]
    last = "missing: 1 of 4 sources, 16.9 % of the paper's samples (their commands are above)"
    assert out.splitlines()[-1] == last  # what is seen last is the table and its notes


def test_the_blend_is_written_and_read(capsys, root, mix_file, tmp_path):
    mine, out = mix_file(), tmp_path / "new" / "blend.yaml"
    code, _, err = amalia(capsys, f"mix={mine}", f"root={root}", f"out={out}")
    assert code == 2 and "1 of the mix's sources are missing (pt_ocr)" in err and not out.exists()
    code, said, _ = amalia(capsys, f"mix={mine}", f"root={root}", f"out={out}", "missing=skip")
    assert "make it" not in said and said.splitlines()[-2].startswith("missing: 1 of 4 sources")
    assert said.splitlines()[-1].startswith(f"written to {out}")
    written = yaml.safe_load(out.read_text())["splits"]["train"]["blend"]
    assert code == 0
    assert {entry["path"].rpartition("/")[2]: entry["weight"] for entry in written} == pytest.approx(
        {"tallyqa": 12 / 24, "iiit5k": 4 / 24, "pt_caps": 8 / 24}
    )


def test_repetitions_are_written_instead_of_weights(capsys, root, mix_file, tmp_path):
    sources = [
        source | {"repeat": 2.5 if source["name"] == "tallyqa" else 2.0} for source in mix_file.content["sources"]
    ]
    words = [f"mix={mix_file(sources=sources)}", f"root={root}", f"out={tmp_path / 'b.yaml'}", "missing=skip"]
    code, out, _ = amalia(capsys, *words, "blend=epochized")
    assert code == 0 and f"amalia data pack {tmp_path / 'b.yaml'} --assets" in out
    assert cells(out)["tallyqa"][2] == "2.50"
    written = yaml.safe_load((tmp_path / "b.yaml").read_text())["splits"]["train"]
    assert list(written) == ["blend_epochized"]
    found = {entry["path"].rpartition("/")[2]: entry["repetitions"] for entry in written["blend_epochized"]}
    assert found == {"tallyqa": 2.5, "iiit5k": 2, "pt_caps": 2}
    for word in ("weights=tokens", "shares=paper"):
        code, _, err = amalia(capsys, *words, "blend=epochized", word)
        assert code == 2 and err.count("\n") == 1
        assert f"{word}" in err and "set weights=samples shares=realised, or blend=weighted" in err
    assert amalia(capsys, *words, "blend=weighted", "weights=tokens")[0] == 0


def test_by_tokens_a_source_of_long_samples_is_drawn_less(capsys, root, mix_file, tmp_path):
    out = tmp_path / "blend.yaml"
    words = (f"mix={mix_file()}", f"root={root}", f"out={out}", "missing=skip", "weights=tokens")
    code, table, _ = amalia(capsys, *words)
    weights = {
        e["path"].rpartition("/")[2]: e["weight"] for e in yaml.safe_load(out.read_text())["splits"]["train"]["blend"]
    }
    lines = cells(table)
    assert code == 0 and weights["iiit5k"] < 4 / 24 and sum(weights.values()) == pytest.approx(1)
    assert [lines[name][7] for name in SIZES] == ["50.00", "16.67", "33.33"]


def test_every_missing_source_is_named(capsys, root):
    code, out, _ = amalia(capsys, "stage=sft", f"root={root}")
    assert code == 0 and "missing: 34 of 37 sources" in out
    for source in read_mix(mix_path("sft")).sources:
        made = f"amalia-data {source.name} run" if source.synthetic else f"--source {source.name} --out "
        assert (made in out) == (source.name not in SIZES), source.name


def test_folders_that_are_not_ready_or_not_named(capsys, root, mix_file, tmp_path):
    here = shutil.copytree(root, tmp_path / "here")
    shutil.rmtree(here / "tallyqa" / ".nv-meta")
    (here / "iiit5k").rename(here / "iiit5kk")
    (here / "pt_caps" / FILE).unlink()
    code, out, _ = amalia(capsys, f"mix={mix_file()}", f"root={here}")
    assert code == 0
    assert re.search(rf"tallyqa +no index; .* make it: energon prepare {here}/tallyqa --non-interactive", out)
    assert "does not name, left out: iiit5kk" in out
    assert "? no totals beside the index of pt_caps: scan=true" in out
    code, _, err = amalia(capsys, f"mix={mix_file()}", f"root={here}", "weights=tokens")
    assert code == 2 and "weights=tokens needs token totals" in err and err.count("\n") == 1
    code, out, _ = amalia(capsys, f"mix={mix_file()}", f"root={here}", "scan=true")
    assert code == 0 and "? no totals" not in out and (here / "pt_caps" / FILE).is_file()


def test_a_tokenizer_makes_the_count_exact(capsys, root, mix_file, tokenizer, chat, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    here = shutil.copytree(root, tmp_path / "here")
    words = (f"mix={mix_file()}", f"root={here}", "scan=true", f"tokenizer={tmp_path / 'tokenizer'}")
    code, out, _ = amalia(capsys, *words)
    lines = cells(out)
    samples = [conversation(i, 1, 3) for i in range(12)]
    expected = sum(len(chat.encode(sample["messages"], [1])[0]) - 1 for sample in samples)
    assert code == 0 and out.count("reading ") == 3 and lines["tallyqa"][5] == f"{expected:,}"
    assert "reading " not in amalia(capsys, *words)[1]  # counted once


def test_what_is_unfit_or_rounded_is_said(capsys, mix_file, tmp_path):
    from nemo_amalia.data.shards.totals import scan

    samples = [conversation(0), conversation(1) | {"images": [b"\xff\xd8"]}]
    folder = write_shards(samples, tmp_path / "here" / "tallyqa").folder
    totals = scan(folder, max_image_pixels=PIXELS)
    totals.refused["placeholders"] = 1
    totals.sizes.step = 4
    totals.write(folder)
    code, out, _ = amalia(capsys, f"mix={mix_file()}", f"root={tmp_path / 'here'}")
    assert code == 0 and "dropped or refused by training: tallyqa (1 samples, 1 images)" in out
    assert "~ image: of sizes rounded to 4 pixels" in out and cells(out)["tallyqa"][6].startswith("~")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "root=DIR is needed"),
        (["root=/nowhere"], "root=/nowhere is not a folder"),
        (["root=.", "stage=sff"], "did you mean sft?"),
        (["root=.", "stage=sft", "mix=a"], "exclude each other"),
        (["root=.", "mix=nowhere.yaml"], "mix file nowhere.yaml cannot be read"),
        (["root=.", "outt=a"], "did you mean out?"),
        (["root=.", "frob=1"], "unknown word 'frob': expected one of stage, mix, root"),
        (["stage=sft", "--out", "x.yaml", "root=."], "--out x.yaml: amalia data mix takes out=x.yaml"),
        (["root=.", "weights=token"], "weights is 'token': expected samples or tokens"),
        (["root=.", "shares=mine"], "expected realised or paper"),
        (["root=.", "scan=yes"], "scan=yes: expected true or false"),
        (["root=.", "blend=epochised"], "blend=epochised: expected weighted or epochized"),
        (["root=.", "tokenizer=a"], "add scan=true"),
        (["root=.", "scan=true", "tokenizer=a"], "tokenizer=a is not a folder"),
        (["root=.", "missing"], "is not key=value"),
        (["root=.", "out=a.yaml", "missing=skip"], "none of the mix's sources is in"),
    ],
)
def test_words_that_cannot_work(capsys, words, said):
    code, _, err = amalia(capsys, *words)
    assert code == 2 and said in err and err.count("\n") == 1


def test_passes_are_checked(capsys, root, mix_file):
    code, _, err = amalia(capsys, f"mix={mix_file()}", f"root={root}", "passes=many")
    assert code == 2 and "passes=many: expected a number" in err
    code, _, err = amalia(capsys, f"mix={mix_file()}", f"root={root}", "passes=5")
    assert code == 2 and "5 times (max_repeat 4)" in err and err.count("\n") == 1


def broken_source(**changes):
    base = {"name": "a", "category": "Captioning", "samples": 1, "source": "", "licence": "", "synthetic": False}
    return {"sources": [base | changes], "categories": {"Captioning": 100.0}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weigths": "tokens"}, "unknown key 'weigths' .* did you mean weights"),
        (broken_source(repeats=2), "unknown key 'repeats' in source 0 .* did you mean repeat"),
        (broken_source(category="Caption"), "category 'Caption': expected one of Captioning"),
        (broken_source(name="a/b"), "must be letters"),
        (broken_source(repeat=0), "all must be positive"),
        (broken_source(max_repeat=-1), "all must be positive"),
        (broken_source(samples="many"), "has the wrong type"),
        ({"sources": []}, "expected a list of data sets"),
        ({"sources": [{"name": "a"}]}, "source 0 of .* lacks category, samples"),
        ({"images": 3}, "expected keys and values"),
    ],
)
def test_mix_files_that_cannot_work(mix_file, changes, said):
    with pytest.raises(UserError, match=said):
        read_mix(mix_file(**changes))
    content = mix_file.content["sources"]
    with pytest.raises(UserError, match="is there twice"):
        read_mix(mix_file(sources=[*content, content[0]]))


def test_two_hundred_sources_take_seconds(capsys, root, mix_file, tmp_path):
    """Indexes alone: no tar is there to read."""
    base = mix_file.content["sources"][0]
    many = [base | {"name": f"set-{i}"} for i in range(200)]
    for source in many:
        meta = shutil.copytree(root / "tallyqa" / ".nv-meta", tmp_path / "many" / source["name"] / ".nv-meta")
        assert not list(meta.parent.glob("*.tar"))
    start = time.monotonic()
    code, out, _ = amalia(capsys, f"mix={mix_file(sources=many)}", f"root={tmp_path / 'many'}")
    assert code == 0 and "2,400" in out and "missing" not in out
    assert time.monotonic() - start < 10  # 0.3 s on two cores


def test_a_source_says_how_it_is_made(tmp_path):
    mix = read_mix(mix_path("sft"))
    own = replace(mix.sources[0], make="cp -r {source} {folder}", source="/mnt/x")
    assert isinstance(own, Source) and mix.command(own, tmp_path) == f"cp -r /mnt/x {tmp_path}"
