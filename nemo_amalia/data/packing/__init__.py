"""Packs of at most seq_length tokens: the algorithms, and `amalia data pack`, which packs offline."""
