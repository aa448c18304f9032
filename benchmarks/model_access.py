"""What asking a model costs beside the model (its server here answers at once), and what the translation guards cost.

python -m benchmarks.model_access [requests]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time

from data_prep.models.answer_cache import AnswerCache
from data_prep.models.ask import Models, Request
from data_prep.models.routes import routes_from
from data_prep.translation.guards import Pair, check
from data_prep.translation.spans import mask, unmask

SERVER = "import sys, time; sys.path.insert(0, 'tests/helpers/data_prep'); from model_double import ModelDouble; "
SERVER += "d = ModelDouble('olá'); d.start(); print(d.url, flush=True); time.sleep(3600)"
PAIR = (
    "The tower in <image> at [0.1, 0.2, 0.3, 0.4] is 1,234.5 m tall and was built by Gustave Eiffel.\nA. yes\nB. no",
    "A torre em <image> em [0.1, 0.2, 0.3, 0.4] tem 1234,5 m de altura e foi construída por Gustave Eiffel.\nA. sim"
    "\nB. não",
)


async def calls(url: str, folder: str, requests: int, size: int, concurrency: int) -> tuple[float, float]:
    """Seconds of CPU for `requests` questions with an image of `size` bytes each, fresh and from the cache."""
    config = {
        "servers": {"s": {"url": url, "concurrency": concurrency}},
        "roles": {"r": {"server": "s", "model": "m", "version": "1"}},
    }
    image = [b"\xff\xd8\xff" + bytes(size)] if size else []
    questions = [Request("r", [{"role": "user", "content": "x" * 500}], images=image, seed=i) for i in range(requests)]
    times = []
    for _ in range(2):
        async with Models(routes_from(config), AnswerCache(folder)) as models:
            await models.ask(Request("r", [{"role": "user", "content": "warm"}], seed=-1))
            began = time.process_time()
            await asyncio.gather(*(models.ask(question) for question in questions))
            times.append(time.process_time() - began)
    return times[0], times[1]


def main(requests: int = 500) -> None:
    """Prints the table."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        print("| question | at once | CPU ms a call | CPU ms from the cache |\n|---|---:|---:|---:|")
        for what, size in (("500 characters", 0), ("and an image of 200 kB", 200_000)):
            for concurrency in (1, 32):
                with tempfile.TemporaryDirectory() as folder:
                    fresh, cached = asyncio.run(calls(url, folder, requests, size, concurrency))
                row = f"{fresh / requests * 1e3:.2f} | {cached / requests * 1e3:.2f}"
                print(f"| {what} | {concurrency} | {row} |")
    finally:
        server.kill()
        server.wait()
    check(Pair(*PAIR))
    began = time.process_time()
    for _ in range(requests):
        masked = mask(PAIR[0])
        unmask(masked.text, masked)
        check(Pair(*PAIR))
    each = (time.process_time() - began) / requests * 1e3
    print(f"\nmask, unmask and {len(PAIR[0])} characters through all guards: {each:.2f} ms of CPU")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
