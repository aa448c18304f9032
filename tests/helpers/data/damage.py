"""Samples that are damaged the ways the web damages them, as (reason, json bytes, [(suffix, bytes)])."""

import json

from chatml import picture

from benchmarks.damaged_images import broken, damaged_images


def text(images: int = 1, **changes) -> bytes:
    messages = [{"role": "user", "content": "<image>" * images + "?"}, {"role": "assistant", "content": "Sim."}]
    return json.dumps({"messages": messages, "source": "teste", "language": "pt"} | changes).encode()


def damaged() -> dict[str, tuple[str, bytes, list[tuple[str, bytes]]]]:
    """name -> (the reason it is dropped for, json, images)."""
    images = damaged_images(lambda kind: picture(90, 60, 1, kind))
    found = {name: ("image", text(), [image]) for name, image in images.items()}
    good = ("jpg", picture(40, 40, 9))
    return found | {
        "json-cut": ("record", text()[:-20], [good]),
        "json-empty": ("record", b"", [good]),
        "no-messages": ("record", b'{"source": "teste"}', [good]),
        "image-missing": ("placeholders", text(2), [good]),
    }


def unnoticed() -> dict[str, tuple[bytes, list[tuple[str, bytes]]]]:
    """Overwritten in the middle of lossy data: there is no checksum, every decoder shows noise and says nothing."""
    return {
        "broken-jpeg": (text(), [("jpg", broken(picture(190, 160, 4)))]),
        "broken-webp": (text(), [("webp", broken(picture(190, 160, 4, "WEBP")))]),
    }
