"""A pipeline for tests of the engine with the project's own client: one question a record to the role `judge`.

`amalia-data base_text run pipeline=asking_pipeline +models.servers.s.url=URL ...` runs it through the real command.
"""

from data_prep.models.ask import Request


def numbers():
    for number in range(10**9):
        yield {"number": number, "source": "numbers", "licence": "CC0-1.0"}


async def ask(sample, run):
    question = {"role": "user", "content": f"Quanto é {sample['number']}?"}
    answer = await run.models.ask(Request("judge", [question]))
    return {"messages": [question, {"role": "assistant", "content": answer.text}], "language": "pt-PT"}


def pipeline(conf):
    return [numbers, ask]


def words_of(url, folder, records, **server):
    """What follows `amalia-data base_text run|status` for a run in `folder`; server: settings of routes.Server."""
    words = ["pipeline=asking_pipeline", f"limit={records}", f"run_dir={folder}/run", f"out={folder}/out"]
    words += [f"+models.servers.s.{name}={value}" for name, value in {"url": f"'{url}'", **server}.items()]
    return [*words, "+models.roles.judge={server: s, model: tiny, version: abc}"]
