"""One folder per data set, each with a pipeline.py; `amalia-data NAME run` runs it."""
