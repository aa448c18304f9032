"""Arguments that Hydra cannot read: no text of its parser comes out, and what we advise works."""

import re
import shlex

import pytest

from data_prep.config import compose as compose_data
from data_prep.config import compose_unchecked
from nemo_amalia.config.compose import compose
from nemo_amalia.utils.errors import UserError
from nemo_amalia.utils.hydra_words import quoted, refuse_unreadable

NEEDED = ["data.path=d", "model.checkpoint=c"]
#: what only the parsers of other programs say
FOREIGN = re.compile(
    r"Lexer|NoViableAlt|no viable|mismatched|extraneous|recognition error|antlr|hydra\.cc|full_key|object_type|"
    r"reference_type|multirun|defaults list is|Config search path|config use \+|unicode string|Traceback"
)


def refused(words, call=compose):
    with pytest.raises(UserError) as info:
        call(words)
    said = str(info.value)
    assert "\n" not in said and not FOREIGN.search(said.partition(" (")[0]), said
    assert not re.search(r"Lexer|NoViable|antlr|hydra\.cc|full_key", said), said
    return said


#: values that Hydra's grammar does not take as they stand
ODD = [
    *("/dados/joão/x", "a(b", "a)", "[a", "{a", "a=b", "x,y", '"x', "it's", "~/x", "a;b", "a!b", "${x", "'\"", "a(b\\"),
    *("foo(a)", "int(x)", "range(1,3)", "choice(a,b)", "glob(*)", "`a`(", "$HOME;"),
]


@pytest.mark.parametrize("value", ODD)
def test_what_is_advised_for_a_value_works(value):
    said = refused([*NEEDED, f"run_dir={value}"])
    assert said.startswith(repr(f"run_dir={value}"))
    advice = said.rpartition(" as in ")[2]
    [word] = shlex.split(advice)
    assert compose([*NEEDED, word]).run_dir == value


def test_the_same_advice_works_for_a_data_set():
    value = "/dados/joão/a(b"
    said = refused([f"run_dir={value}"], lambda words: compose_data("base_text", words))
    [word] = shlex.split(said.rpartition(" as in ")[2])
    assert compose_unchecked("base_text", [word]).run_dir == value


def test_the_character_and_the_quotes_are_named():
    said = refused(["stage=sft", "data.path=/dados/joão/x"])
    assert "'ã' may not stand there" in said and said.endswith("""as in data.path="'/dados/joão/x'\"""")
    said = refused(["run_dir=a(b"])
    assert "'(' may not stand there in a value that is not quoted; close it with ), or" in said
    assert said.endswith("""as in run_dir="'a(b'\"""")
    assert "gives several values, expected one: for a list write 'run_dir=[x,y]', for one" in refused(["run_dir=x,y"])


@pytest.mark.parametrize("value", ["plain", "back\\", "two\\\\", "it's", 'say "x"', "a\\'b", "", " ", "${x}", "é\\"])
def test_quoted_reads_as_it_stands(value):
    [word] = shlex.split(quoted(f"run_dir={value}"))
    refuse_unreadable([word])
    assert compose([*NEEDED, word]).run_dir == value


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("=3", "'=3' has no key before the =: write key=value"),
        ("+=3", "'+=3' has no key before the =: write key=value"),
        ("+x=1", "unknown config key 'x': known at the top: run_dir"),
        ("~data.path", "'~data.path' is not an override: write key=value"),
        ("~data.path=", "would take a key out, and every key is needed"),
        ("data=", "data=: conf/data has default, demo"),
        ("data=[1]", "data=[1]: conf/data has default, demo"),
        ("stage.train_steps=", "stage.train_steps=: expected a whole number from 1 to"),
        ("stage.train_steps={a: 1}", "expected a whole number from 1 to"),
        ("stage.learning_rates.tower=[1,2]", "expected a number from 0 to 1"),
        ("stage.learning_rates=3", "stage.learning_rates has keys of its own: give those one by one"),
        ("stage.learning_rates={towr: 3}", "unknown config key 'stage.learning_rates.towr': did you mean stage."),
        ("stage.tiling=maybe", "expected true or false"),
        ("stage.trainable=x", "or several, as [tower,connector]"),
        ("stage.trainable={a: 1}", "or several, as [tower,connector]"),
        ("data.path=null", "data.path=null: expected a path"),
        ("run_dir=${nope}", "the value of run_dir has a ${...} that cannot be resolved ("),
        ("run_dir=${oc.env:NO_SUCH_VARIABLE}", "the value of run_dir has a ${...} that cannot be resolved ("),
        ("data.path=${stage}", "data.path has a value that is not of its type: expected a path"),
        ("hydra.x=1", "unknown config key 'hydra.x'"),
        ("hydra/launcher=x", "hydra/launcher=x: expected one of basic"),
        ("hydra=x", "'hydra=x' cannot be applied to the configuration ("),
    ],
)
def test_other_words_of_a_run(word, said):
    assert said in refused(["model.checkpoint=c", word])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("=3", "'=3' has no key before the =: write key=value"),
        ("a b=3", "'a b=3' has ' ' in its key: expected letters, digits, _ and dots"),
        ("~limit=3", "would take a key out"),
        ("executor=", "executor=: conf/data_prep/executor has local, slurm"),
        ("executor={a: 1}", "executor={a: 1}: conf/data_prep/executor has local, slurm"),
        ("common/engine=x", "unknown config key 'common/engine': see conf/data_prep/base_text.yaml"),
        ("+common=x", "common=x: expected one of code, engine"),
        ("limit=", "limit=: expected a whole number"),
        ("texts=3", "texts=3: expected a section, whose settings are texts.path="),
        ("texts=[1]", "expected settings below it, each as KEY.NAME=value ("),
        ("run_dir=null", "run_dir=None: expected text"),
        ("run_dir=${nope}", "the value of run_dir has a ${...} that cannot be resolved ("),
        ("run_dir.x=1", "unknown config key 'run_dir.x': did you mean run_dir?"),
    ],
)
def test_other_words_of_a_data_set(word, said):
    assert said in refused([word], lambda words: compose_data("base_text", words))
