"""A server that is not there is said before a run waits for it."""

import socket

import pytest
from asking_pipeline import words_of

from data_prep.cli import main
from data_prep.models.reachable import silent_servers


def models(*urls):
    servers = {f"s{number}": {"url": url} for number, url in enumerate(urls)}
    roles = {f"role{number}": {"server": f"s{number}", "model": "m"} for number in range(len(urls))}
    return {"servers": servers, "roles": roles}


def test_only_those_that_take_no_connection_are_named():
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_server(("127.0.0.1", 0)) as gone:
        ports = [server.getsockname()[1] for server in (there, gone)]
        gone.close()
        found = list(silent_servers(models(*(f"http://127.0.0.1:{port}/v1" for port in ports))))
    assert len(found) == 1
    assert f"no server at http://127.0.0.1:{ports[1]}/v1 yet, which answers role1" in found[0]
    assert "models.servers.s1.url=..." in found[0]


def test_a_server_that_answers_no_role_and_one_behind_a_proxy_are_not_looked_for():
    idle = models("http://127.0.0.1:1/v1")
    idle["roles"] = {}
    behind = models("http://no-such-host.invalid/v1")
    behind["servers"]["s0"]["proxy"] = True
    assert not list(silent_servers(idle)) and not list(silent_servers(behind))


def test_a_host_without_a_name_is_said_too():
    assert "no server at http://no-such-host.invalid/v1" in next(
        silent_servers(models("http://no-such-host.invalid/v1"))
    )


@pytest.mark.parametrize("executor", ["local", "slurm"])
def test_a_url_that_is_no_address_is_refused_before_a_server_is_said_to_be_missing(tmp_path, capsys, executor):
    words = [*words_of("localhost:8765", tmp_path, records=1), f"executor={executor}"]
    assert main(["base_text", "run", *words, *(["executor.partition=acc"] if executor == "slurm" else [])]) == 2
    said = capsys.readouterr().err
    assert "error: server url 'localhost:8765' does not begin with http:// or https://: write it out" in said
    assert "no server at" not in said and not list(tmp_path.glob("**/run.json"))


def test_whoever_submits_to_a_cluster_is_told_what_is_seen_from_there(tmp_path, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/v1"
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch: it ends where it would submit
    words = words_of(url, tmp_path, records=1)
    assert main(["base_text", "run", *words, "executor=slurm", "executor.partition=acc"]) == 2
    seen, *_, ended = capsys.readouterr().err.splitlines()
    assert f"seen from this machine, each task looks again from its node: no server at {url} yet" in seen
    assert "error: Slurm did not take the job" in ended
