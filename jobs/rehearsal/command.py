"""`python -m jobs rehearse`: the server on a port of its own, keys from a file, state in a directory."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path

from pydantic import ValidationError

from jobs.rehearsal.app import Settings
from jobs.rehearsal.faults import Faults, read
from jobs.rehearsal.recipe import Recipe
from launcher.outcome import Failure, Reason
from launcher.spec.strict import describe
from launcher.system.processes import die_with_parent

#: Keys of a server that a stage starts: JSON of key -> tenant, in the environment, never on a command line.
KEYS_VARIABLE = "TUNEYARD_REHEARSAL_KEYS"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="launcher rehearse", description="Serve the OpenAI fine-tuning protocol; jobs really train."
    )
    options.add_argument("--state", required=True, type=Path)
    options.add_argument("--model", action="append", default=[], metavar="NAME=DIRECTORY")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8321)
    options.add_argument("--keys", type=Path)
    options.add_argument("--faults", type=Path)
    options.add_argument("--fault-header", action="store_true")
    options.add_argument("--requests-per-minute", type=int, default=10_000)
    options.add_argument("--recipe", default="{}", help="JSON of recipe.Recipe's fields")
    options.add_argument("--ready-file", type=Path)
    options.add_argument("--die-with-parent", action="store_true")
    return options


def settings(arguments: argparse.Namespace) -> Settings:
    """What the options say. Raises Failure(USAGE) with every problem."""
    problems = []
    models = {}
    for given in arguments.model:
        name, equals, directory = given.partition("=")
        if not equals or not name or not (Path(directory) / "config.json").is_file():
            problems.append(f"--model {given}: write NAME=DIRECTORY, a directory with config.json")
        models[name] = Path(directory).absolute()
    if not models and not problems:
        problems.append("--model NAME=DIRECTORY: at least one is needed")
    try:
        recipe = Recipe.model_validate_json(arguments.recipe)
    except ValidationError as error:
        problems += [f"--recipe: {problem}" for problem in describe(error)]
        recipe = Recipe()
    if problems:
        raise Failure(
            Reason.USAGE,
            "the server cannot start",
            problems=tuple(problems),
            next_step="correct what is listed; launcher rehearse --help",
        )
    arguments.state.mkdir(parents=True, exist_ok=True)
    rules = read(arguments.faults) if arguments.faults else ()
    return Settings(
        state=arguments.state.absolute(),
        models=models,
        keys=_keys(arguments),
        recipe=recipe,
        faults=Faults(rules, arguments.fault_header),
        requests_per_minute=arguments.requests_per_minute,
    )


def _keys(arguments: argparse.Namespace) -> dict[str, str]:
    """Key -> tenant: from the environment, the file named, or a key made now and kept in the state directory."""
    if KEYS_VARIABLE in os.environ:
        return {str(key): str(tenant) for key, tenant in json.loads(os.environ.pop(KEYS_VARIABLE)).items()}
    path = arguments.keys or arguments.state / "keys"
    if arguments.keys is None and not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"local sk-rehearsal-{secrets.token_urlsafe(24)}\n")
        print(f"an API key was made: it is the second word in {path}", flush=True)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Failure(Reason.USAGE, f"cannot read: {why}", where=f"--keys {path}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2 or not words[0].replace("-", "").isalnum():
            # What stands there is not repeated: it may be a key.
            raise Failure(Reason.USAGE, f"line {number} is not 'TENANT KEY'", where=f"--keys {path}")
        found[words[1]] = words[0]
    if not found:
        raise Failure(Reason.USAGE, "holds no key", where=f"--keys {path}")
    return found


def main(arguments: list[str]) -> int:
    from jobs.rehearsal.server import serve

    options = parser().parse_args(arguments)
    if options.die_with_parent:
        die_with_parent()
    chosen = settings(options)

    def ready(url: str) -> None:
        print(f"rehearsal at {url}, models {', '.join(chosen.models)}", flush=True)
        if options.ready_file:
            staged = options.ready_file.with_name(f".{options.ready_file.name}")
            staged.write_text(url, encoding="ascii")
            staged.replace(options.ready_file)

    try:
        serve(chosen, host=options.host, port=options.port, ready=ready)
    except OSError as error:
        raise Failure(
            Reason.USAGE, f"cannot listen: {error.strerror}", where=f"--port {options.port}"
        ) from None
    return 0
