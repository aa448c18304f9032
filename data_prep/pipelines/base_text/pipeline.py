"""base_text: texts are cut into paragraphs, tidied and cut into sentences; of equal paragraphs one stays; each becomes
a conversation about its first, last or n-th sentence, or their number (the text side of PT-OCR's sentence tasks,
paper section 5.1).
"""

from functools import partial

from data_prep.engine import Barrier
from data_prep.pipelines.base_text.questions import ask_about_a_sentence, load_questions
from data_prep.pipelines.base_text.sources import read_texts
from data_prep.pipelines.base_text.text import find_sentences, first_of_equal_texts, split_paragraphs, tidy


def pipeline(conf) -> list:
    """The steps, in order."""
    return [
        partial(read_texts, path=conf.texts.path, licence=conf.texts.licence, language=conf.texts.language),
        split_paragraphs,
        partial(tidy, shortest=conf.shortest, longest=conf.longest),
        partial(find_sentences, fewest=conf.fewest_sentences),
        Barrier(first_of_equal_texts, reason="duplicate", fields=("text",)),
        partial(ask_about_a_sentence, questions=load_questions(), tasks=conf.tasks),
    ]
