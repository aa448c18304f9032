"""A request as it goes over the wire: chat messages, images as data or file URLs, the body of /chat/completions."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.models import prompts
from data_prep.models.routes import Route, Server
from nemo_amalia.data.shards.write import image_suffix
from nemo_amalia.utils.errors import ConfigError

Image = bytes | Path


class DataUrl(str):
    """A base64 data URL made here: nothing in it needs escaping in JSON."""


TOKENS_PER_IMAGE = 256  # what a rate limit reckons with before the server has counted (Gemma 3: 256)
CHARS_PER_TOKEN = 3


def image_bytes(image: Image) -> bytes:
    """The compressed bytes. Raises ConfigError when the file cannot be read."""
    try:
        return image if isinstance(image, bytes) else Path(image).read_bytes()
    except OSError as error:
        raise ConfigError(f"image {image} cannot be read ({error.strerror}): check the path") from error


def mime(data: bytes) -> str:
    """The media type by the first bytes. Raises ConfigError on what is no image."""
    suffix = image_suffix(data)
    return "image/" + {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)


def fingerprints(images: Sequence[Image]) -> list[str]:
    """sha256 of each image's bytes: what the cache's key holds of it."""
    return [hashlib.sha256(image_bytes(image)).hexdigest() for image in images]


def place_images(
    messages: Sequence[Mapping[str, Any]], images: Sequence[Image], mode: str = "base64"
) -> list[dict[str, Any]]:
    """Messages in which each {"type": "image"} part is the next image; without such parts, the images go before the
    text of the first user message. mode: Server.images.

    Raises ConfigError when the placeholders are not as many as the images.
    """
    placed = [dict(message) for message in messages]
    parts = [message["content"] for message in placed if isinstance(message["content"], list)]
    holes = sum(part.get("type") == "image" for content in parts for part in content)
    if not images and not holes:
        return placed
    urls = iter([{"type": "image_url", "image_url": {"url": _url(image, mode)}} for image in images])
    if holes == 0:
        first = next((message for message in placed if message["role"] == "user"), None)
        if first is None:
            raise ConfigError(f"a request has {len(images)} images and no user message to hold them: add one")
        content = first["content"]
        first["content"] = [*urls, *([{"type": "text", "text": content}] if isinstance(content, str) else content)]
        return placed
    if holes != len(images):
        raise ConfigError(f"a request has {holes} image parts and {len(images)} images: give one for each, in order")
    for message in placed:
        if isinstance(message["content"], list):
            message["content"] = [next(urls) if p.get("type") == "image" else p for p in message["content"]]
    return placed


def _url(image: Image, mode: str) -> str:
    if mode == "file" and not isinstance(image, bytes):
        return Path(image).absolute().as_uri()
    data = image_bytes(image)
    return DataUrl(f"data:{mime(data)};base64,{base64.b64encode(data).decode()}")


def with_schema_text(messages: list[dict[str, Any]], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The schema in words at the end of the last user message, for servers that cannot enforce one."""
    words = prompts.load("answer_schema").render(esquema=json.dumps(schema, ensure_ascii=False))
    *before, last = messages
    content = last["content"]
    if isinstance(content, str):
        return [*before, {**last, "content": f"{content}\n\n{words}"}]
    return [*before, {**last, "content": [*content, {"type": "text", "text": words}]}]


def sampling(route: Route, temperature: float, seed: int | None, max_tokens: int) -> dict[str, Any]:
    """What decides how an answer is drawn: part of the body and of the cache's key."""
    chosen = {"temperature": temperature, "max_tokens": max_tokens, **route.extra}
    return chosen if seed is None else {**chosen, "seed": seed}


def body(
    route: Route,
    server: Server,
    messages: list[dict[str, Any]],
    schema: Mapping[str, Any] | None,
    drawn: dict[str, Any],
) -> dict[str, Any]:
    """The JSON of POST /chat/completions; `drawn` is what sampling() gave."""
    request = {"model": route.model, "messages": messages, **drawn}
    if schema is not None and server.schema == "native":
        request["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }
    elif schema is not None:
        request["messages"] = with_schema_text(messages, schema)
    return request


def encode(body: Mapping[str, Any]) -> bytes:
    """The body as UTF-8 JSON. Images are put in afterwards: json looks at each letter, 1 ms for 200 kB."""
    urls: list[str] = []
    mark = uuid.uuid4().hex

    def light(part: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(url := (part.get("image_url") or {}).get("url"), DataUrl):
            return part
        urls.append(url)
        return {**part, "image_url": {**part["image_url"], "url": mark}}

    messages = [
        {**m, "content": [light(part) for part in m["content"]]} if isinstance(m["content"], list) else m
        for m in body["messages"]
    ]
    text = json.dumps({**body, "messages": messages}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    first, *rest = text.split(mark)
    return "".join([first, *(piece for pair in zip(urls, rest, strict=True) for piece in pair)]).encode()


def estimate_tokens(messages: Sequence[Mapping[str, Any]], max_tokens: int) -> int:
    """A rough count for the rate limit, corrected by the server's own afterwards: text, images, and a full answer."""
    characters = images = 0
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            characters += len(part.get("text", ""))
            images += part["type"] != "text"
    return characters // CHARS_PER_TOKEN + images * TOKENS_PER_IMAGE + max_tokens
