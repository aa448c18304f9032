"""The pt-PT filter: lexical evidence, a classifier as second opinion, and who decides (docs/data_prep/variety.md).

At import time it needs the standard library and yaml alone, and nothing else of this project.
"""
