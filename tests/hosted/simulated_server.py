"""The rehearsal server as a process of its own, with simulated workers: `simulated_server.py OPTIONS`."""

import dataclasses
import sys
from pathlib import Path

from jobs.rehearsal import command
from jobs.rehearsal.server import serve
from launcher.system.processes import die_with_parent

WORKER = str(Path(__file__).with_name("simulated.py"))


def main() -> None:
    options = command.parser().parse_args(sys.argv[1:])
    die_with_parent()
    settings = dataclasses.replace(
        command.settings(options), train_worker=(WORKER, "train"), answer_worker=(WORKER, "answer")
    )

    def ready(url: str) -> None:
        staged = options.ready_file.with_suffix(".new")
        staged.write_text(url)
        staged.replace(options.ready_file)

    serve(settings, host=options.host, port=options.port, ready=ready)


if __name__ == "__main__":
    main()
