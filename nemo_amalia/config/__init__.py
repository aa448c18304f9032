"""Hydra values (conf/) -> a typed run schema; what does not fit is refused with a remedy."""
