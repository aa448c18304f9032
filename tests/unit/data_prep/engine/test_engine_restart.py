"""A run that goes on: only with the same settings and records, never beside another, and every loss is noticed."""

import json
import sqlite3

import pytest
from engine_runs import make, settings, source, turns

from data_prep.engine.folder import RunFolder, write_json
from data_prep.engine.journal import Journal
from data_prep.engine.ledger import Ledger
from data_prep.engine.steps import phases_of
from nemo_amalia.utils.errors import UserError


def test_other_settings_are_refused(tmp_path):
    conf = settings(tmp_path)
    RunFolder(conf).begin(conf, "one")
    RunFolder(conf).begin(settings(tmp_path, concurrency=9), "two")  # changes no sample
    with pytest.raises(UserError, match="is of a run with seed=1, and now it is 2: choose another run_dir"):
        RunFolder(conf).begin(settings(tmp_path, seed=2), "one")


def test_a_server_may_move_and_a_model_may_not(tmp_path):
    def with_models(url, model):
        servers = {"gpu": {"url": url}}
        return settings(tmp_path, models={"servers": servers, "roles": {"judge": {"server": "gpu", "model": model}}})

    conf = with_models("http://a/v1", "gemma")
    RunFolder(conf).begin(conf, "one")
    RunFolder(conf).begin(with_models("http://b/v1", "gemma"), "one")
    with pytest.raises(UserError, match="models.roles.judge.model=gemma, and now it is qwen"):
        RunFolder(conf).begin(with_models("http://b/v1", "qwen"), "one")


def test_a_source_that_changed_is_noticed(tmp_path):
    conf = settings(tmp_path)
    make(conf, [source(8), turns], tasks=2, only=[0], finish=False)
    with pytest.raises(UserError, match="the source gives other records than when the run began .chunk 1."):
        make(conf, [source(8, more=1), turns], tasks=2, only=[1], finish=False)


def test_two_processes_do_not_share_a_chunk(tmp_path):
    with Journal(tmp_path / "c.sqlite"), pytest.raises(UserError, match="in use by another process"):
        Journal(tmp_path / "c.sqlite", wait_seconds=0.1)


def test_a_record_is_there_once(tmp_path):
    with Journal(tmp_path / "c.sqlite") as journal:
        journal.add(3, {"a": 1}, [{"x": b"1"}])
        with pytest.raises(sqlite3.IntegrityError):
            journal.add(3, {"a": 2}, [{"x": b"2"}])
        assert journal.done() == {3: {"a": 1}}


def test_a_full_disk_is_an_error(tmp_path):
    with Journal(tmp_path / "c.sqlite") as journal:
        journal._file.execute("PRAGMA max_page_count = 12")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            journal.add(1, {}, [{"x": bytes(200_000)}])
        assert journal.done() == {}, "not half of it"


def lose_a_record(place):
    with sqlite3.connect(place.journal(1)) as file:
        file.execute("DELETE FROM record WHERE number = 5")


def lose_a_sample(place):
    with sqlite3.connect(place.journal(1)) as file:
        file.execute("UPDATE record SET items = '[]' WHERE number = 5")


def lose_a_summary(place):
    place.summary(1).unlink()


def lose_a_count(place):
    with sqlite3.connect(place.journal(1)) as file:
        (text,) = file.execute("SELECT ledger FROM record WHERE number = 5").fetchone()
        stored = json.loads(text)
        stored["ledger"]["steps"][0][2] = 0
        file.execute("UPDATE record SET ledger = ? WHERE number = 5", (json.dumps(stored),))


def mix_runs(place):
    ledger = Ledger.from_json(json.loads(place.summary(1).read_text())["ledger"])
    ledger.samples += 1
    write_json(place.summary(1), {"ledger": ledger.to_json()})


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lose_a_record, "phase 1-records, chunk 1 do not add up: it has 4 records and 3 are done"),
        (lose_a_sample, "record 5 has 0 samples and counts 1"),
        (lose_a_summary, "chunk 1 of phase 1-records is not done"),
        (lose_a_count, "chunk 1 do not add up: turns: 4 in = 3 out . 0 dropped: 1 lost"),
        (mix_runs, "4 records and 5 samples were done, 4 and 4 are there"),
    ],
)
def test_every_loss_is_an_error_at_the_end(tmp_path, harm, text):
    conf, parts = settings(tmp_path), [source(10), turns]
    make(conf, parts)
    harm(RunFolder(conf).phase(phases_of(parts)[0]))
    with pytest.raises(UserError, match=text):
        make(conf, parts, only=[])


def test_ledgers_name_what_does_not_add_up():
    ledger = Ledger.of(["a", "b"])
    ledger.records, ledger.samples = 3, 2
    ledger.steps[0].into = ledger.steps[0].out = 3
    ledger.steps[1].into, ledger.steps[1].out = 2, 2
    with pytest.raises(UserError, match="phase s do not add up: 3 came out of a and 2 went into b"):
        ledger.check("s", 3)
    ledger.steps[1].into, ledger.steps[1].out = 3, 3
    with pytest.raises(UserError, match="3 came out of b and 2 samples are stored"):
        ledger.check("s", 3)
