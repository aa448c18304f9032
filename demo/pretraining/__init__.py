"""How the small pretrained pair in demo/base was made: `make demo-base`."""
