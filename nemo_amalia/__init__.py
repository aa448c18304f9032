"""nemo_amalia: an open, Megatron-class trainer for European Portuguese vision-language models."""

__version__ = "0.1.0"
