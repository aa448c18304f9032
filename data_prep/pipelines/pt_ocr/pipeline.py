"""pt_ocr: documents are drawn as pages and asked about; the answers are checked."""

from functools import partial

from data_prep.pipelines.pt_ocr.samples import check, converse
from data_prep.pipelines.pt_ocr.source import annotated, built_in


def pipeline(conf) -> list:
    """The steps, in order."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(conf, resolve=True)
    seed_data, common = values["seed_data"], {"seed": conf.seed, "together": values["together"]}
    if seed_data["path"] is None:
        source = partial(built_in, samples=conf.samples, document=values["document"], **common)
    else:
        path, licence = seed_data["path"], seed_data["licence"]
        source = partial(annotated, path=path, licence=licence, samples=conf.samples, **common)
    return [source, partial(converse, pictures=values["pictures"], asking=values["asking"]), check]
