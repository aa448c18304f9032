"""The entry of a rank of `amalia reference`: as training.main, with forward passes for its work."""

from nemo_amalia.training.launch.reference import settle_batch
from nemo_amalia.training.main import main


def reference_rank(run, console, backend, overrides) -> None:
    """The work of one rank. Megatron is imported here, after the platform is ready."""
    from nemo_amalia.training.reference.run import make_reference

    make_reference(run, console, backend, overrides)


if __name__ == "__main__":
    main(work=reference_rank, settle=settle_batch)
