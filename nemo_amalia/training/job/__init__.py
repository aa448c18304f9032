"""The job around a run: its environment, lock, console and exit codes. Imports no Megatron."""
