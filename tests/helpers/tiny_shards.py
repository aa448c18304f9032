"""Small folders of shards with real images, conversations or pairs, for tests that train through Energon."""

import io

SEQ_LENGTH = 256


def conversations(number: int, seed: int = 0):
    """Dicts for write_shards: one small noise image each (every fourth has none), one question and its answer."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    for index in range(number):
        images, content = [], []
        if index % 4 != 3:
            width, height = (int(x) for x in random.integers(24, 72, size=2))
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
            images, content = [file.getvalue()], [{"type": "image"}]
        content.append({"type": "text", "text": "Que vês?"})
        yield {
            "key": f"ruido-{index:05d}",
            "messages": [
                {"role": "user", "content": content},
                {"role": "assistant", "content": [{"type": "text", "text": f"Ruído {index}."}]},
            ],
            "images": images,
            "source": "ruido",
            "language": "pt-PT",
        }


def preferences(number: int, seed: int = 1):
    """Dicts for write_shards: the prompts of ``conversations``, each with a chosen and a rejected answer."""
    for index, sample in enumerate(conversations(number, seed)):
        answers = {"chosen": "Está a mostrar ruído", "rejected": "Está mostrando ruído" + " sim" * (index % 3)}
        content = {
            name: [{"role": "assistant", "content": [{"type": "text", "text": f"{text} {index}."}]}]
            for name, text in answers.items()
        }
        yield sample | content | {"key": f"par-{index:05d}", "messages": sample["messages"][:1]}
