"""The forward steps: SFT, DPO and their losses."""
