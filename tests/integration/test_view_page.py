"""The page of `amalia data view` in a real browser: at a phone's width, at a desk's, and in the dark."""

import io

import pytest
import tiny_hf
from browser import CHROMIUM, MISSING, browse
from PIL import Image
from stream_settings import make_view
from tiny_shards import conversations

from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.data.view.page import page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

WIDTHS = (390, 1280)
FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="f390" src="page.html" style="width:390px;height:900px;border:0"></iframe>
<iframe id="f1280" src="page.html" style="width:1280px;height:900px;border:0"></iframe><pre id="found"></pre>
<script>
function luminance(colour) {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}
function background(element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
}
function contrast(element) {
  const [a, b] = [luminance(getComputedStyle(element).color), luminance(background(element))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
window.addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, root = page.documentElement;
    const wide = [...page.querySelectorAll("body *")].filter((e) =>
      e.getBoundingClientRect().right > root.clientWidth + 1 && !e.closest(".scroll, svg, .hidden"));
    found[frame.id] = {
      overflow: root.scrollWidth - root.clientWidth,
      wide: wide.slice(0, 5).map((e) => `${e.tagName}.${e.className}`),
      broken: [...page.images].filter((i) => i.naturalWidth === 0).length,
      images: page.images.length,
      off: [...page.querySelectorAll(".canvas")].filter((c) => {
        const [a, b] = [c.querySelector("img"), c.querySelector("svg")].map((e) => e.getBoundingClientRect());
        const image = c.querySelector("img");
        const squeezed = (a.width / a.height) * (image.naturalHeight / image.naturalWidth);
        if (image.naturalWidth && Math.abs(squeezed - 1) > 0.05) return true;
        return Math.abs(a.width - b.width) > 1 || Math.abs(a.height - b.height) > 1 || Math.abs(a.left - b.left) > 1;
      }).length,
      focusable: [...page.querySelectorAll(".tokens")].every((e) => e.tabIndex === 0),
      faint: [".tokens .t", ".tokens .loss", ".tokens .special", ".tokens .image", ".note", ".badges span", ".mark",
              "td", ".checks p", ".lead", ".verdict", ".hist span", ".tiles dt", "summary", "nav a", "figcaption"]
        .flatMap((s) => [...page.querySelectorAll(s)].slice(0, 40).map((e) => [s, contrast(e)]))
        .filter(([, ratio]) => ratio < 4.5).map(([s, ratio]) => `${s} ${ratio.toFixed(2)}`),
    };
  }
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A page with everything on it: findings, refusals, images, packs."""
    folder = tmp_path_factory.mktemp("page")
    samples = list(conversations(24))
    samples[5]["language"] = ""
    samples[4]["images"], samples[8]["images"] = [png(24, 130)], [png(130, 20)]  # tall and wide
    samples[6]["messages"][1]["content"][0]["text"] = "palavra" * 60 + " " + "muito " * 40
    samples[7]["messages"] = samples[7]["messages"][:1]
    tokenizer = tiny_hf.tokenizer()
    tokenizer.chat_template = "<|im_start|>system\nÉs útil.<|im_end|>\n" + tiny_hf.TEMPLATE
    tiny_hf.llava_config().save_pretrained(folder / "hf")
    tiny_hf.processor(tokenizer).save_pretrained(folder / "hf")
    source = write_shards(samples, folder / "dados").folder
    settings = {"samples": 24, "number": 24, "seq_length": 2048, "packing_algorithm": "best_fit_decreasing"}
    (folder / "page.html").write_text(page(make_view(str(source), folder / "hf", **settings)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def seen(built, tmp_path_factory):
    return browse(built, tmp_path_factory.mktemp("profile"), FRAME)


def test_no_error_reaches_the_console(seen):
    assert seen[1] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out(seen, width):
    found = seen[0][f"f{width}"]
    assert found["overflow"] == 0 and found["wide"] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_pictures_are_there_with_their_lines_on_them(seen, width):
    found = seen[0][f"f{width}"]
    assert found["images"] > 10 and found["broken"] == 0 and found["off"] == 0


def test_it_can_be_read_and_reached_by_keyboard(seen):
    """WCAG AA: 4.5 to 1 for text."""
    assert seen[0]["f1280"]["faint"] == [] and seen[0]["f1280"]["focusable"]


def test_the_dark_scheme_can_be_read_too(built, tmp_path):
    dark = (built / "page.html").read_text().replace("(prefers-color-scheme: dark)", "all")
    (tmp_path / "page.html").write_text(dark, encoding="utf-8")
    found, console = browse(tmp_path, tmp_path / "profile", FRAME)
    assert found["f1280"]["faint"] == [] and console == []


def test_this_browser_notices_what_sticks_out(built, tmp_path):
    """The control: the checks above see a wide element, a broken picture and gray on gray."""
    text = (built / "page.html").read_text()
    text = text.replace("<main", '<p style="width:1500px">x</p><p class="note" style="color:#999">x</p><main', 1)
    text = text.replace("base64,/9j/", "base64,AAAA", 1)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    found = browse(tmp_path, tmp_path / "profile", FRAME)[0]["f390"]
    assert found["overflow"] > 1000 and found["wide"] == ["P."] and found["broken"] == 1
    assert len(found["faint"]) == 1
