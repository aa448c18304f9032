"""The cache of answers between processes and after kill -9."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_prep.models.answer_cache import JOURNALS, AnswerCache, content_key
from nemo_amalia.utils.errors import UserError

WRITER = textwrap.dedent("""
    import sys
    from data_prep.models.answer_cache import AnswerCache, content_key
    folder, journal, name, count = sys.argv[1:]
    cache = AnswerCache(folder, journal)
    for i in range(int(count)):
        stored = cache.put(content_key(i=i), {"text": name, "i": i})
        print(i, stored["text"], flush=True)
""")


def writer(folder, journal, name, count):
    command = [sys.executable, "-c", WRITER, str(folder), journal, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("journal", JOURNALS)
def test_two_processes_write_the_same_keys_and_read_the_same_answers(tmp_path, journal):
    AnswerCache(tmp_path, journal).close()
    processes = [writer(tmp_path, journal, name, 60) for name in ("a", "b")]
    seen = [[line.split()[1] for line in process.communicate(timeout=60)[0].splitlines()] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert seen[0] == seen[1] and len(seen[0]) == 60
    cache = AnswerCache(tmp_path, journal)
    assert len(cache) == 60 and [cache.get(content_key(i=i))["text"] for i in range(60)] == seen[0]


def test_what_was_stored_before_kill_9_is_there(tmp_path):
    process = writer(tmp_path, "wal", "a", 1_000_000)
    printed = []
    for line in process.stdout:
        printed.append(line)
        if len(printed) == 200:
            process.send_signal(signal.SIGKILL)
            break
    printed += process.stdout.readlines()
    process.wait()
    cache = AnswerCache(tmp_path)
    whole = [line for line in printed if line.endswith("\n")]
    assert len(whole) >= 200
    assert all(cache.get(content_key(i=i)) == {"text": "a", "i": i} for i in range(len(whole)))
    assert len(cache) - len(whole) in (0, 1)  # stored, and killed before it was printed


def test_a_fork_opens_its_own_connection(tmp_path):
    cache = AnswerCache(tmp_path)
    cache.put(content_key(i=0), {"text": "pai"})
    child = os.fork()
    if child == 0:
        ok = cache.get(content_key(i=0)) == {"text": "pai"}
        cache.put(content_key(i=1), {"text": "filho"})
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get(content_key(i=1)) == {"text": "filho"}


@pytest.mark.parametrize("journal", JOURNALS)
def test_many_processes_open_a_new_cache_at_once(tmp_path, journal):
    for again in range(20):  # one time in seven, SQLite says "locked" at once to a process that makes the file too
        folder, begin, children = tmp_path / str(again), time.time() + 0.03, []
        for number in range(6):
            child = os.fork()
            if child == 0:
                time.sleep(max(0, begin - time.time()))
                try:
                    cache = AnswerCache(folder, journal)
                    ok = cache.put(content_key(i=number % 2), {"n": number})["n"] % 2 == number % 2
                    os._exit(0 if ok else 1)
                except BaseException:
                    os._exit(2)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
        assert len(AnswerCache(folder, journal)) == 2


def test_many_threads_put_and_read_back_what_is_stored(tmp_path):
    cache = AnswerCache(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        stored = list(
            pool.map(lambda i: (cache.put(content_key(i=i), {"i": i}), cache.get(content_key(i=i))), range(800))
        )
    assert stored == [({"i": i}, {"i": i}) for i in range(800)]


def test_a_file_that_is_no_cache_and_a_folder_that_is_none_are_named(tmp_path):
    (tmp_path / "answers.sqlite").write_text("isto não é uma base de dados " * 50)
    with pytest.raises(UserError, match=r"answers.sqlite cannot be used as a cache"):
        AnswerCache(tmp_path)
    with pytest.raises(UserError, match="cannot be used as a cache"):
        AnswerCache(tmp_path / "answers.sqlite" / "x")
    with pytest.raises(UserError, match="journal='memory'"):
        AnswerCache(tmp_path, "memory")


def test_the_key_is_of_content_and_reading_is_quick(tmp_path):
    assert content_key(a=1, b="é") == content_key(b="é", a=1) != content_key(a=1, b="e")
    cache = AnswerCache(tmp_path)
    cache.put(content_key(i=0), {"text": "x" * 2000})
    began = time.process_time()
    for _ in range(200):
        cache.get(content_key(i=0))
    assert (time.process_time() - began) / 200 < 0.003  # the engine's whole budget for a sample
