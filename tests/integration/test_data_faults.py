"""Real runs over damaged shards: what is said and listed, what ends every rank, and a resume with other workers."""

import json

import pytest
from launcher import launch

STEPS, STOP = 8, 6


def prepare_inputs(folder):
    from pathlib import Path

    import tiny_hf
    from tiny_shards import conversations

    from nemo_amalia.bridge.import_hf import import_checkpoint
    from nemo_amalia.data.shards.write import write_shards

    here = Path(folder)
    import_checkpoint(hf=tiny_hf.llava_next(here / "source"), vision=None, llm=None, out=here / "checkpoint")
    samples = list(conversations(40))
    for sample in samples[::5]:  # every fifth image has no end, where it has one
        sample["images"] = [image[:-60] for image in sample["images"]]
    write_shards(samples, here / "ruidos", samples_per_shard=10)


def train_here(folder, name, **data):
    """(error or None, its text, what this rank said) of one run."""
    import os
    from pathlib import Path

    import torch.distributed as dist
    from tiny_shards import SEQ_LENGTH
    from training_runs import run_config

    from nemo_amalia.training.job.console import Console
    from nemo_amalia.training.run import train

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    run = run_config(f"{folder}/checkpoint", f"{folder}/{name}", steps=STEPS, batch=2)
    run.stop_after = data.pop("stop_after", STOP)
    run.stage.seq_length, run.logging.interval = SEQ_LENGTH, 2
    run.data.path, run.data.num_workers, run.data.packing_buffer_size = f"{folder}/ruidos", 1, 8
    for key, value in data.items():
        setattr(run.data, key, value)
    Path(run.run_dir).mkdir(parents=True, exist_ok=True)
    said = Path(f"{folder}/{name}.{os.getpid()}.txt")
    os.environ["AMALIA_CONSOLE"] = str(said)
    console = Console(run.run_dir, dist.get_rank())
    try:
        train(run, console, "gloo")
    except Exception as error:
        return type(error).__name__, str(error), said.read_text().splitlines()
    return None, "", said.read_text().splitlines()


def two_ranks(folder):
    """To the end in spite of the drops; with their list; and with the default limit, which ends it."""
    return [
        train_here(folder, "whole", max_dropped_fraction=1.0),
        train_here(folder, "listed", quarantine=f"{folder}/whole/quarantine"),
        train_here(folder, "limited"),
    ]


def other_workers(folder):
    return train_here(folder, "whole", num_workers=2, stop_after=STEPS)


def one_rank(folder):
    """Another number of ranks; the same after a word of the user; and a worker that is killed."""
    import os
    import signal

    from nemo_amalia.data.encoding.encoders import ConversationEncoder

    found = [train_here(folder, "whole", stop_after=STEPS)]
    found.append(train_here(folder, "whole", stop_after=STEPS, start_anew_at=STOP, max_dropped_fraction=1.0))
    cook = ConversationEncoder.cook

    def killed_once(record):
        if record["__key__"].endswith("ruido-00033"):
            os.kill(os.getpid(), signal.SIGKILL)
        return cook(record)

    ConversationEncoder.cook = staticmethod(killed_once)
    found.append(train_here(folder, "killed", max_dropped_fraction=1.0))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("faults"))
    launch(prepare_inputs, 1, {"folder": place})
    return place


@pytest.fixture(scope="module")
def runs(folder):
    return launch(two_ranks, 2, {"folder": folder}, timeout=300)


def data_lines(lines, replica):
    return [line for line in lines if line.startswith(f"[data] replica {replica} ruidos: ")]


def test_drops_are_said_by_source_and_listed(runs, folder):
    listed = set()
    for replica, ((error, text, lines), *_) in enumerate(runs):
        assert error is None, text
        assert " dropped (" in data_lines(lines, replica)[0] and lines[-1].endswith(" image)")
        for line in map(json.loads, open(f"{folder}/whole/quarantine/{replica}.jsonl")):
            assert line["folder"] == f"{folder}/ruidos" and line["reason"] == "image" and line["index"]
            listed.add((line["shard"], line["key"]))
    bad = {f"ruido-{i:05d}" for i in range(0, 40, 5) if i % 4 != 3}  # every fourth has no image
    assert {key for _, key in listed} == bad


def test_the_list_is_replayed(runs):
    for replica, (_, (error, text, lines), _) in enumerate(runs):
        assert error is None, text  # none of them counts against the limit
        (line,) = data_lines(lines, replica)  # at the end alone
        assert line.endswith(" quarantined)") and " image" not in line


def test_too_many_drops_end_every_rank_with_one_line(runs):
    (error, text, _), (other_error, other_text, _) = (run[2] for run in runs)
    assert (error, text) == (other_error, other_text) and error == "TooManyDroppedError"
    assert text.startswith("source ruidos dropped ") and "data.max_dropped_fraction allows 0.10%" in text
    assert "worst shards: shard-00000" in text and "\n" not in text


def test_another_number_of_workers_is_refused_on_every_rank(runs, folder):
    for error, text, _ in launch(other_workers, 2, {"folder": folder}, timeout=300):
        assert error == "DataError" and "num_workers was 1 and is 2" in text and "\n" not in text


def test_another_number_of_ranks_and_a_killed_worker(runs, folder):
    fewer, anew, killed = launch(one_rank, 1, {"folder": folder}, timeout=300)[0]
    assert fewer[0] == "CheckpointError" and "the data positions of 2 data-parallel ranks" in fewer[1]
    assert "this run has 1: resume with 2 ranks, or" in fewer[1]
    assert anew[0] is None, anew[1]
    assert "[data] begins again at step 6, as data.start_anew_at says" in anew[2]
    assert killed[0] == "WorkerLostError" and "\n" not in killed[1]
    assert killed[1].startswith("data worker 0 (pid ") and "ruido-00033" in killed[1] and "SIGKILL" in killed[1]
