"""The launching side: check everything, then start the ranks. Imports no Megatron."""
