"""The engine of the data pipelines, on datatrove: docs/data_prep.md. A pipeline's file needs these four names."""

from data_prep.engine.steps import Barrier, Drop, Run, Sample

__all__ = ["Barrier", "Drop", "Run", "Sample"]
