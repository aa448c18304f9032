"""Translation of conversations, EN -> pt-PT (paper, section 4.2: no "monolingual islands"; issue 6, part 4).

spans finds what must not be translated, guards check what came back, translator asks the models, report says what
changed. Benchmarks go the same way as training data.
"""
