"""Checks before any rank starts: steps, schedule and dataloader state of a resumed run. Imports no Megatron."""
