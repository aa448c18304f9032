"""Values of the wrong type are refused in our own words, never in those of Hydra or OmegaConf."""

import pytest

from nemo_amalia.config.compose import compose
from nemo_amalia.utils.errors import UserError

PLACES = ["run_dir=runs/x", "model.checkpoint=ckpt", "data.path=data"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=1e23", "seed=1e23: expected a whole number from 0 to 2,147,483,647"),
        ("seed=0x10", "seed=0x10: expected a whole number from"),
        ("seed=null", "seed=null: expected a whole number from"),
        ("data.num_workers=1.5", "data.num_workers=1.5: expected a whole number from 0 to 512"),
        ("data.num_workers=", "data.num_workers=: expected a whole number from 0 to 512"),
        ("data.num_workers=[1", "close it with ], or"),
        ("stage.train_steps=abc", "stage.train_steps=abc: expected a whole number from 1 to 1,000,000,000, or null"),
        ("launch.ranks=true", "launch.ranks=true: expected a whole number from 1"),
        ("optim.clip_grad=abc", "optim.clip_grad=abc: expected a number from 0"),
        ("stage.packing=maybe", "stage.packing=maybe: expected true or false"),
        ("stage.packing=2", "stage.packing=2: expected true or false"),
        ("stage.trainable=tower", "stage.trainable=tower: choose one of tower, connector, decoder, or several, as ["),
        ("data.path=[a]", "data.path=[a]: expected a path"),
        ("data.path=a,b", "'data.path=a,b' gives several values, expected one"),
        ("data.path=x(1)", "calls a function that cannot be evaluated"),
        ("stage.learning_rates=3", "has keys of its own: give those one by one, as stage.learning_rates.tower=..."),
        ("stage.learning_rates={tower: abc}", "expected a number from 0 to 1"),
        ("stage.learning_rates={towr: 1}", "did you mean stage.learning_rates.tower?"),
        ("+seed=3", "seed is in every run; give it another value with seed=..., without +"),
        ("~seed=3", "every key is needed: give it a value"),
        ("seed=${run_dir}", "seed has a value that is not of its type: expected a whole number from"),
        ("seed=${nowhere}", "the value of seed has a ${...} that cannot be resolved"),
    ],
)
def test_another_type_is_refused_in_plain_words(word, said):
    with pytest.raises(UserError) as caught:
        compose([word, *PLACES])
    message = str(caught.value)
    assert said in message and "\n" not in message
    assert not any(
        foreign in message for foreign in ("full_key", "object_type", "converted", "alternative", "hydra.cc")
    )


def test_what_is_written_in_another_way_is_taken():
    run = compose([*PLACES, "seed='12'", "++stage.train_steps=7", "optim.clip_grad=1", "stage.packing=yes"])
    assert (run.seed, run.stage.train_steps, run.optim.clip_grad, run.stage.packing) == (12, 7, 1.0, True)
    run = compose([*PLACES, "stop_after=${stage.train_steps}", "stage.learning_rates={tower: 1e-4}", "run_dir='a,b=c'"])
    assert (run.stop_after, run.stage.learning_rates.tower, run.run_dir) == (run.stage.train_steps, 1e-4, "a,b=c")
