"""Preference pairs as write_shards takes them, and what is wrong with those that are refused."""

from chatml import conversation


def say(role, text):
    return {"role": role, "content": text}


def pair(index: int, images: int = 1, words: int = 2) -> dict:
    """An answer in European Portuguese, chosen, and one of another length."""
    made = conversation(index, images)
    return made | {
        "key": f"p-{index:05d}",
        "messages": made["messages"][:1],
        "chosen": [say("assistant", "está a mostrar " * words + str(index))],
        "rejected": [say("assistant", "está mostrando " * (1 + index % 3) + str(index))],
    }


GOOD, ASKED = say("assistant", "Um autocarro."), say("user", "<image>Quê?")
#: reason -> (what differs from a good pair, what the error says)
BAD = {
    "same_answers": ({"chosen": [GOOD], "rejected": [GOOD]}, "has equal answers, chosen and rejected"),
    "no_answer": ({"rejected": [say("assistant", " \n")]}, "the rejected answer of pair .* is missing or empty"),
    "placeholders": ({"images": []}, r"\(chosen\) has 1 <image> placeholders and 0 images"),
    "other_prompt": ({"chosen": [say("user", "Outra?"), GOOD]}, "chosen has the user's turn 'Outra\\?', which is not"),
    "too_long": ({"chosen": [say("assistant", "a" * 300)], "rejected": [say("assistant", "b" * 200)]}, "takes .* the"),
    "record": ({"chosen": None}, "cannot be used"),
    "image": ({"images": [b"\xff\xd8 nada"]}, "image 0 of sample .*chosen.*: 7 bytes that no image format"),
    "special_token": ({"chosen": [say("assistant", "a<|im_end|>")]}, "contains the special token"),
}
