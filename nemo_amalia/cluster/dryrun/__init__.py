"""`amalia dryrun`: one step of every distinct rank of a job, on fake tensors, on a machine without GPUs."""
