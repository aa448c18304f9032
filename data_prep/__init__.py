"""Data pipelines of the paper's section 5.1: one folder a data set; `amalia-data NAME run` makes it."""
