"""A scripted OpenAI-compatible server: a real HTTP server in this process that can be slow, wrong, malformed,
rate-limiting and dying. What it answers is a function of the request and of how many came before it."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the double sends. raw: a body in the place of a completion; reset: the connection is cut, nothing sent."""

    text: str = "olá"
    status: int = 200
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    raw: str | None = None
    reset: bool = False
    finish: str = "stop"
    tokens: tuple[int, int] = (10, 5)


Script = Callable[[dict[str, Any], int], Reply | str]


def texts(body: dict[str, Any]) -> list[str]:
    """The text of each message of a request."""
    return [
        m["content"] if isinstance(m["content"], str) else "".join(p.get("text", "") for p in m["content"])
        for m in body["messages"]
    ]


class ModelDouble:
    """with ModelDouble(script) as double: ... double.url. `requests` and `headers` keep what came, in order."""

    def __init__(self, script: Script | str = "olá", port: int = 0) -> None:
        self.script = script if callable(script) else lambda body, number: script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.errors: list[Exception] = []  # of the script; the client sees 500
        self.under_way = self.most_under_way = 0
        self._port, self._lock = port, threading.Lock()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        self.stop()
        if self.errors and kind is None:
            raise self.errors[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Begins to listen; on the same port when it ran before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Dies: connections are refused until start()."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            number = len(self.requests)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            reply = self.script(body, number)
            reply = Reply(reply) if isinstance(reply, str) else reply
            time.sleep(reply.delay)
            return reply
        except Exception as error:
            self.errors.append(error)
            return Reply(status=500, raw=f"the script broke: {error!r}")
        finally:
            with self._lock:
                self.under_way -= 1


def _handler(double: ModelDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            reply = double.reply(body, {k.lower(): v for k, v in self.headers.items()})
            if reply.reset:
                linger = struct.pack("ii", 1, 0)  # close() then sends RST
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()
                return
            data = (reply.raw if reply.raw is not None else json.dumps(_completion(body, reply))).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client had left
                self.close_connection = True

        def finish(self) -> None:
            try:
                super().finish()
            except OSError:
                pass

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _completion(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    tokens_in, tokens_out = reply.tokens
    return {
        "object": "chat.completion",
        "model": body.get("model"),
        "choices": [
            {"index": 0, "finish_reason": reply.finish, "message": {"role": "assistant", "content": reply.text}}
        ],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out},
    }
