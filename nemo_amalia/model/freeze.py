"""What a stage trains, and the learning rate of each part.

A parameter belongs to the tower, the connector (image_newline included) or the decoder, by the first piece of its
name; wrappers (DDP, Float16Module) put ``module.`` before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from megatron.bridge.training.config import (
    OptimizerConfigOverrideProvider,
    OptimizerConfigOverrideProviderContext,
)
from megatron.core.optimizer.optimizer_config import ParamKey, ParamWithNamePredicate
from megatron.core.optimizer_param_scheduler import ParamGroupOverride
from torch import nn

from nemo_amalia.config.schema import MODULES
from nemo_amalia.utils.errors import ConfigError

_MODULE_OF = {
    "vision_tower": "tower",
    "connector": "connector",
    "image_newline": "connector",
    "language_model": "decoder",
}
# In no path from pixels to loss (vision.py).
_ALWAYS_FROZEN = "vision_tower.post_layernorm."


def _unwrapped(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def module_of(name: str) -> str:
    """``tower``, ``connector`` or ``decoder`` for a parameter's name, wrapped or not. KeyError for a stranger."""
    return _MODULE_OF[_unwrapped(name).split(".", 1)[0]]


def check_modules(names: Iterable[str]) -> tuple[str, ...]:
    """The names themselves. Raises ConfigError for an unknown or empty list."""
    names = tuple(names)
    unknown = sorted(set(names) - set(MODULES))
    if unknown or not names:
        raise ConfigError(f"trainable is {list(names)}: name at least one of {', '.join(MODULES)}, and nothing else")
    return names


def apply_freeze(model: nn.Module, trainable: Iterable[str]) -> None:
    """Sets requires_grad: True for parameters of ``trainable`` modules, False for all others.

    Raises ConfigError for a name that is not one of MODULES.
    """
    wanted = check_modules(trainable)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(module_of(name) in wanted and not _unwrapped(name).startswith(_ALWAYS_FROZEN))


def parameter_group_overrides(
    lrs: Mapping[str, float], min_lrs: Mapping[str, float] | None = None
) -> dict[ParamKey, ParamGroupOverride]:
    """Megatron-Core's per-group overrides: ``max_lr`` and ``min_lr`` for each module named in ``lrs``.

    min_lrs: the rate that the schedule ends at; 0.0 for a module that it does not name. Merge with
    ``get_standard_config_overrides`` (no weight decay for biases and norms), as ModuleLearningRates does.
    Raises ConfigError for an unknown module, or a minimum above its maximum.
    """
    min_lrs = min_lrs or {}
    check_modules([*lrs, *min_lrs])
    overrides = {}
    for module, maximum in lrs.items():
        minimum = min_lrs.get(module, 0.0)
        if not 0.0 <= minimum <= maximum:
            raise ConfigError(f"{module}: min_lr {minimum} and max_lr {maximum}; expected 0 <= min_lr <= max_lr")
        belongs = ParamWithNamePredicate(
            name=f"amalia_{module}", fn=lambda _, name, module=module: module_of(name) == module
        )
        overrides[ParamKey(with_name_predicate=belongs)] = ParamGroupOverride(max_lr=maximum, min_lr=minimum)
    return overrides


@dataclass
class ModuleLearningRates(OptimizerConfigOverrideProvider):
    """For ``ConfigContainer.optimizer_config_override_provider``: one learning rate each for the modules named.

    lrs, min_lrs: as parameter_group_overrides. Modules that are not named follow the optimizer's ``lr``.
    """

    lrs: dict[str, float] = field(default_factory=dict)
    min_lrs: dict[str, float] = field(default_factory=dict)

    def build_config_overrides(
        self, context: OptimizerConfigOverrideProviderContext
    ) -> dict[ParamKey, ParamGroupOverride] | None:
        """Megatron's standard overrides and ours; the two are merged parameter by parameter."""
        standard = super().build_config_overrides(context) or {}
        return {**standard, **(parameter_group_overrides(self.lrs, self.min_lrs) if self.lrs else {})} or None
