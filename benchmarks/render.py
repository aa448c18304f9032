"""``python -m benchmarks.render [--pages 300]``: pages a second with 1 and 2 workers, and what parts of a page cost.

A page is a sheet of A4 at 150 dots an inch (1,240 x 1,754 pixels) full of text of PT-OCR's corpus, in carried fonts,
papers and sizes as they are drawn for the data set, encoded as JPEG. "perturbed": with the data set's share and mix of
perturbations. Texts and styles are drawn before. Pages a second are by the clock: run it on a machine that does nothing
else. The rest is CPU time, after 40 pages for each worker.
"""

import argparse
import multiprocessing
import statistics
import time
from dataclasses import replace
from functools import partial
from random import Random

from benchmarks.measure import table
from data_prep.config import settings
from data_prep.pipelines.pt_ocr.corpus import document
from data_prep.pipelines.pt_ocr.pictures import draw_perturbations
from data_prep.rendering import fonts
from data_prep.rendering.encode import encode
from data_prep.rendering.perturb import names, perturb, perturb_page
from data_prep.rendering.text import CannotRender, TextStyle, draw_style, render_text

WIDTH, HEIGHT = 1240, 1754
WARM = 40


def written(number: int) -> tuple[str, TextStyle]:
    """As many paragraphs as stand on an A4 page in the style drawn for this number, and the style."""
    rng = Random(f"benchmark/{number}")
    text = "\n\n".join(document(rng, [0, 0, 0, 0, 0, 0, 1], 0, 0)["text"] for _ in range(2))
    style = replace(draw_style(rng, fonts.families("carried"), text, WIDTH), height=HEIGHT, title=False)
    blocks = text.split("\n\n")
    while True:
        try:
            render_text("\n\n".join(blocks), style, number)
            return "\n\n".join(blocks), style
        except CannotRender:
            blocks.pop()


def make(task: tuple[int, str, TextStyle], perturbed: bool) -> tuple[float, int, int]:
    """(CPU seconds, bytes, words) of a finished page."""
    number, text, style = task
    start = time.process_time()
    page, values, rng = render_text(text, style, number), settings("pt_ocr")["pictures"]["perturbed"], Random(number)
    if perturbed and rng.random() < values["share"]:
        page = perturb_page(page, draw_perturbations(rng, values), number)
    size = len(encode(page.image))
    return time.process_time() - start, size, len(page.words)


def rate(pages: int, workers: int, perturbed: bool) -> tuple[float, float, float, float]:
    """(pages a second by the clock, mean CPU seconds, bytes and words of a page); workers are warm."""
    work = partial(make, perturbed=perturbed)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        numbers = range(10_000, 10_000 + pages)
        tasks = [(n, *text) for n, text in zip(numbers, pool.map(written, numbers, chunksize=10), strict=True)]
        pool.map(work, tasks[: WARM * workers], chunksize=WARM)
        start = time.perf_counter()
        made = pool.map(work, tasks, chunksize=10)
        seconds = time.perf_counter() - start
    return pages / seconds, *(statistics.mean(column) for column in zip(*made, strict=True))


def cost(function, times: int = 20) -> float:
    """Milliseconds of CPU time, the median of calls with 0, 1, 2, ..."""
    found = []
    for number in range(times):
        start = time.process_time()
        function(number)
        found.append((time.process_time() - start) * 1000)
    return statistics.median(found)


def parts() -> list[list[str]]:
    """What a page's parts cost, and each perturbation of a grey page."""
    pages = [written(number) for number in range(WARM)]
    text = pages[1][0]
    style = TextStyle(width=WIDTH, size=25, align="justify")
    grey, cream = render_text(text, style), render_text(text, replace(style, look="cream"))
    rows = [["styles as drawn: lay out and draw", cost(lambda n: render_text(*pages[n], n))]]
    rows.append(["one style, black on white: lay out and draw", cost(lambda n: render_text(text, style, n))])
    rows.append(
        ["the same on cream paper with grain", cost(lambda n: render_text(text, replace(style, look="cream"), n))]
    )
    rows += [
        [f"encode {f}, {what}", cost(lambda n, p=p, f=f: encode(p.image, f))]
        for f in ("jpeg", "png")
        for what, p in (("grey", grey), ("RGB", cream))
    ]
    quads = grey.word_quads
    rows += [[f"{name}, grey", cost(lambda n, name=name: perturb(grey.image, name, n, quads))] for name in names()]
    return [[name, f"{milliseconds:.1f}"] for name, milliseconds in rows]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=300)
    pages = parser.parse_args().pages
    rows = []
    for perturbed in (False, True):
        for workers in (1, 2):
            speed, busy, size, words = rate(pages, workers, perturbed)
            what = "perturbed" if perturbed else "clean"
            rows.append([what, str(workers), f"{speed:.1f}", f"{busy * 1e3:.1f}", f"{size / 1e3:.0f}", f"{words:.0f}"])
    print(f"{pages} pages of {WIDTH} x {HEIGHT}")
    print(table(["pages", "workers", "pages/s", "CPU ms", "kB", "words"], rows))
    print(table(["part of a page", "CPU ms"], parts()))


if __name__ == "__main__":
    main()
