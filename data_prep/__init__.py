<<<<<<< HEAD
"""Synthetic pt-PT data: one folder a data set of the paper (section 5.1), common/ for what they share."""
=======
"""Data pipelines of the paper's section 5.1: one folder a data set; `amalia-data NAME run` makes it."""
>>>>>>> cd266d6b073bdaa775ff8dce1ec19d1eda94af34
