"""The stream of micro-batches for one data-parallel rank, from Energon or from a pack index."""
