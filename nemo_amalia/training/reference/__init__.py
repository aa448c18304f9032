"""Reference log-probabilities for DPO: computed once, kept in a file, read by stage 3."""
