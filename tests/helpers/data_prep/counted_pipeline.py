"""A pipeline for tests of the engine: two model calls a sample, a picture, drops; and a server that counts calls.

`amalia-data base_text run pipeline=counted_pipeline +server=URL limit=N` runs it through the real command.
"""

import asyncio
import io
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from data_prep.engine import Drop


class CountingServer(ThreadingHTTPServer):
    """Answers every POST after `seconds` with its own text turned around; `calls` counts by text."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, seconds: float = 0.02):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seconds, self.calls, self.lock = seconds, Counter(), threading.Lock()
        self.url = f"127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802, the library's name
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with self.server.lock:
            self.server.calls[text] += 1
        time.sleep(self.server.seconds)
        body = text[::-1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except OSError:  # the caller was killed
            pass


@dataclass
class Ask:
    role: str
    text: str
    prompt: str = "virar@0000"


@dataclass
class Answered:
    text: str
    model: str = "espelho@1"
    tokens_in: int = 5
    tokens_out: int = 5
    cost: float = 0.001
    cached: bool = False


class HttpModels:
    """The smallest client that really calls."""

    def __init__(self, url: str):
        self.host, _, self.port = url.partition(":")

    async def ask(self, request: Ask) -> Answered:
        reader, writer = await asyncio.open_connection(self.host, int(self.port))
        body = request.text.encode()
        writer.write(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = await reader.read()
        writer.close()
        return Answered(answer.partition(b"\r\n\r\n")[2].decode())


def models(conf):
    return HttpModels(conf.server)


def numbers():
    for number in range(10**9):
        yield {"text": f"texto {number}", "number": number, "source": "numbers", "licence": "CC0-1.0"}


async def ask_twice(sample, run):
    first = await run.models.ask(Ask("pergunta", "a " + sample["text"]))
    second = await run.models.ask(Ask("resposta", "b " + sample["text"]))
    if sample["number"] % 10 == 7:
        raise Drop("seven", note=json.dumps(sample["number"]))
    return {"question": first.text, "answer": second.text}


def picture(sample, run):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (24, 24), tuple(run.rng.randrange(256) for _ in range(3))).save(file, "PNG")
    content = [{"type": "image"}, {"type": "text", "text": sample["question"]}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": sample["answer"]}]
    return {"messages": turns, "images": [file.getvalue()], "language": "pt-PT"}


def pipeline(conf):
    return [numbers, ask_twice, picture]
