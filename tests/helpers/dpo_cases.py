"""What the parity tests of DPO train and compare."""

STEPS, PACKS, PAIRS_A_PACK = 4, 4, 2
FIGURES = ("loss", "grad_norm", "grad_norm/tower", "grad_norm/connector", "grad_norm/decoder", "logps/chosen")
FIGURES += ("logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "kl")
