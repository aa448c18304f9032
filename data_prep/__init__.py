"""Synthetic pt-PT data: one folder a data set of the paper (section 5.1), common/ for what they share."""
