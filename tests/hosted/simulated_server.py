"""The rehearsal server with simulated workers, as a process: `simulated_server.py OPTIONS`."""

import dataclasses
from pathlib import Path
from typing import Any

from jobs.rehearsal import server
from jobs.rehearsal.app import ServerSettings
from jobs.rehearsal.command import command

WORKER = str(Path(__file__).with_name("simulated.py"))
serve = server.serve


def serve_simulated(settings: ServerSettings, **options: Any) -> None:
    workers = {"train_worker": (WORKER, "train"), "answer_worker": (WORKER, "answer")}
    serve(dataclasses.replace(settings, **workers), **options)


if __name__ == "__main__":
    server.serve = serve_simulated
    command()
