"""A model of the Hugging Face hub: what the local cache has first, then one question to the hub.

transformers by itself asks for one file after the other, each six times, before it says that there is no network.
"""

from __future__ import annotations

from pathlib import Path

SECONDS = 5.0  # for the hub's answer


def cached_folder(name: str, revision: str | None = None) -> str | None:
    """Where the cache has the model's configuration; not all of its files need to be there. Asks nobody."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # no name that a hub can have
        return None
    return str(Path(found).parent) if isinstance(found, str) else None


def refusal(name: str, revision: str | None = None) -> str | None:
    """None where the hub has the model, else in one line where it is not and what the hub said, which is asked once."""
    import httpx
    from huggingface_hub import HfApi, constants

    api = HfApi()
    try:
        api.model_info(name, revision=revision, timeout=SECONDS)
    except (httpx.HTTPError, OSError, ValueError) as error:
        said = str(error).split("\n")[0] or f"no answer in {SECONDS:g} s"
        return f"no folder, not whole in the cache {constants.HF_HUB_CACHE}, and the hub {api.endpoint}: {said}"
    return None
