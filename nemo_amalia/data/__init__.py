"""The data path: source files to micro-batches."""
