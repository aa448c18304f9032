"""`amalia plan`: memory, step time, hours and cost of a job, estimated on a machine without GPUs."""
