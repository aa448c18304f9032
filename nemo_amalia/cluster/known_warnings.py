"""What the libraries say of every plan and dry run, and nobody who asked for one can act on: silenced by its words."""

from __future__ import annotations

import logging
import warnings

# Logger -> how the message begins. What else these loggers say is heard.
_LOGGED = {
    # Bridge reads it of transformers' config; transformers 5 renamed it.
    "transformers.configuration_utils": "`torch_dtype` is deprecated",
    # True of this machine, which has no GPU; the plan is of another.
    "megatron.bridge.utils.fusions": "gradient_accumulation_fusion requires",
    # Bridge's own providers build it.
    "megatron.core.models.gpt.gpt_model": "GPTModel IS DEPRECATED",
}
# Bridge's default of a setting that Megatron renamed; CUDA graphs are not used here.
_WARNED = ("full scope is deprecated", UserWarning, r"megatron\.core\.transformer\.transformer_config")


def silence_known_warnings() -> None:
    """For the rest of this process. Idempotent; imports none of the libraries, and may be called before they are."""
    message, category, module = _WARNED
    warnings.filterwarnings("ignore", message=message, category=category, module=module)
    for name in _LOGGED:
        logging.getLogger(name).addFilter(_unknown)  # a filter is added once


def _unknown(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LOGGED[record.name])
