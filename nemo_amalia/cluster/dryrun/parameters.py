"""Parameters of a rank by part, counted on the module itself: built on torch's meta device, in a fake world."""

from __future__ import annotations

import contextlib
import copy
import io

from nemo_amalia.cluster.dryrun.fake_world import fake_world
from nemo_amalia.config.schema import RunConfig
from nemo_amalia.model.provider import AmaliaVLModelProvider
from nemo_amalia.utils.errors import ConfigError

_PARTS = {
    "vision_tower": "tower",
    "connector": "connector",
    "image_newline": "connector",
    "language_model.embedding": "embedding",
    "language_model.decoder.layers": "layer",
    "language_model.decoder.final_layernorm": "norm",
    "language_model.output_layer": "output",
}


def count_parameters(run: RunConfig, provider: AmaliaVLModelProvider) -> dict[str, int]:
    """Of one tensor-parallel rank: embedding, a decoder layer, norm, output, tower, connector.

    The model is built whole, without pipeline stages: these only share its layers out. Raises ConfigError should its
    layers differ in size, or a parameter belong to no part.
    """
    from megatron.core.process_groups_config import ProcessGroupCollection

    from nemo_amalia.training.setup.bridge_config import set_model

    model = copy.deepcopy(provider)
    set_model(run, model)
    model.pipeline_model_parallel_size, model.virtual_pipeline_model_parallel_size = 1, None
    model.num_layers_in_first_pipeline_stage = model.num_layers_in_last_pipeline_stage = None
    model.context_parallel_size, model.overlap_p2p_comm, model.batch_p2p_comm = 1, False, True
    with fake_world(0, run.parallel.tensor), contextlib.redirect_stdout(io.StringIO()):
        model.initialize_model_parallel(seed=0, create_gloo_process_groups=False)
        model.finalize()
        groups = ProcessGroupCollection.use_mpu_process_groups()
        (module,) = model.provide_distributed_model(
            wrap_with_ddp=False, init_model_with_meta_device=True, mixed_precision_wrapper=None, pg_collection=groups
        )
        return _by_part({name: parameter.numel() for name, parameter in module.named_parameters()})


def _by_part(sizes: dict[str, int]) -> dict[str, int]:
    layers: dict[str, int] = {}
    found = dict.fromkeys(_PARTS.values(), 0)
    for name, size in sizes.items():
        part = next((part for start, part in _PARTS.items() if name.startswith(start)), None)
        if part is None:
            raise ConfigError(f"parameter {name} belongs to no part that `amalia plan` knows: name it in parameters.py")
        if part == "layer":
            number = name.split(".layers.", 1)[1].split(".", 1)[0]
            layers[number] = layers.get(number, 0) + size
        else:
            found[part] += size
    if len(set(layers.values())) != 1:
        raise ConfigError(f"decoder layers of {sorted(set(layers.values()))} parameters: a plan takes them alike")
    return {**found, "layer": next(iter(layers.values()))}
