"""`launcher rehearse`: the rehearsal server on a port of its own, keys from a file, state in a directory."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.outcome import Failure, Reason
from launcher.store.file_locks import locked
from launcher.system.processes import die_with_parent

if TYPE_CHECKING:
    from jobs.rehearsal.app import ServerSettings

#: Keys of a server that a stage starts: JSON of key -> tenant, in the environment, never on a command line.
KEYS_VARIABLE = "TUNEYARD_REHEARSAL_KEYS"


@click.command("rehearse")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="NAME=DIRECTORY",
    help="A model name of the protocol, and the directory of the open model (config.json, *.safetensors, tokenizer) "
    "that answers under it. Can be repeated.",
)
@click.option(
    "--state",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the server's files, jobs and adapters. A server started again with it continues its jobs.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. An address other than loopback needs a TLS proxy in front.",
)
@click.option(
    "--port",
    default=8321,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 chooses a free one.",
)
@click.option(
    "--keys",
    "keys_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with lines of 'TENANT KEY'; tenants cannot see each other.  [default: a new key in STATE/keys]",
)
@click.option(
    "--requests-per-minute",
    default=10_000,
    show_default=True,
    type=click.IntRange(1),
    help="Requests per minute and tenant; more are answered with 429.",
)
@click.option(
    "--faults",
    "faults_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON list of faults to inject (docs/hosted.md).  [default: none]",
)
@click.option(
    "--fault-header", is_flag=True, help="Inject the fault that a request's header x-rehearsal-fault names."
)
@click.option(
    "--recipe",
    help='JSON with training settings, such as {"learning_rate": 0.001}.  [default: as in jobs/rehearsal/recipe.py]',
)
@click.option("--ready-file", type=click.Path(path_type=Path), hidden=True)
@click.option("--die-with-parent", "dies_with_parent", is_flag=True, hidden=True)
def command(
    models: tuple[str, ...],
    state: Path,
    host: str,
    port: int,
    keys_path: Path | None,
    requests_per_minute: int,
    faults_path: Path | None,
    fault_header: bool,
    recipe: str | None,
    ready_file: Path | None,
    dies_with_parent: bool,
) -> int:
    """Serve the OpenAI protocol for files, fine-tuning jobs, chat completions and batches; jobs really train.

    Any OpenAI SDK works with it. A status page with loss curves is at /, the OpenAPI description at /openapi.json.

    \b
    launcher rehearse --model gpt-4o-mini=models/smollm2 --state rehearsal
    export OPENAI_BASE_URL=http://127.0.0.1:8321/v1 OPENAI_API_KEY=$(cut -d' ' -f2 rehearsal/keys)
    """
    # Imports the web server, which `--help` does without.
    from jobs.rehearsal.server import serve

    if dies_with_parent:
        die_with_parent()
    # Files, answers and adapters of the tenants are for this user only; child processes inherit this.
    os.umask(0o077)
    chosen = settings(
        models=models,
        state=state,
        keys_path=keys_path,
        requests_per_minute=requests_per_minute,
        faults_path=faults_path,
        fault_header=fault_header,
        recipe=recipe,
    )

    def ready(url: str) -> None:
        click.echo(f"rehearsal at {url}, models {', '.join(chosen.models)}")
        if ready_file is not None:
            staged = ready_file.with_name(f".{ready_file.name}")
            staged.write_text(url, encoding="ascii")
            staged.replace(ready_file)

    with only_server(chosen.state):
        try:
            serve(chosen, host=host, port=port, ready=ready)
        except OSError as error:
            raise Failure(Reason.USAGE, f"cannot listen: {error.strerror}", where=f"--port {port}") from None
    return 0


@contextmanager
def only_server(state: Path) -> Iterator[None]:
    """Hold the lock of a state directory. Raises Failure(USAGE) that names the process if a server has it."""
    holder = state / "server.pid"
    with locked(state / "server.lock", wait=False) as is_mine:
        if not is_mine:
            pid = holder.read_text(encoding="ascii").strip() if holder.is_file() else "unknown"
            raise Failure(
                Reason.USAGE,
                f"another server uses this state directory: process {pid}",
                where=f"--state {state}",
                next_step="stop that process, or choose another --state",
            )
        holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield


def settings(
    *,
    models: tuple[str, ...],
    state: Path,
    keys_path: Path | None = None,
    requests_per_minute: int = 10_000,
    faults_path: Path | None = None,
    fault_header: bool = False,
    recipe: str | None = None,
) -> ServerSettings:
    """The server's settings; creates `state`. Raises Failure(USAGE) with every problem."""
    from pydantic import ValidationError

    from jobs.rehearsal.app import ServerSettings
    from jobs.rehearsal.faults import Faults, read
    from jobs.rehearsal.recipe import Recipe
    from launcher.spec.strict import describe

    problems = []
    directories = {}
    for given in models:
        name, equals, directory = given.partition("=")
        if not equals or not name or not (Path(directory) / "config.json").is_file():
            problems.append(f"--model {given}: write NAME=DIRECTORY, a directory with config.json")
        directories[name] = Path(directory).absolute()
    training = Recipe()
    try:
        training = Recipe() if recipe is None else Recipe.model_validate_json(recipe)
    except ValidationError as error:
        problems += [f"--recipe: {problem}" for problem in describe(error)]
    if problems:
        raise Failure(
            Reason.USAGE,
            "the server cannot start",
            problems=tuple(problems),
            next_step="correct what is listed; launcher rehearse --help",
        )
    state.mkdir(parents=True, exist_ok=True)
    return ServerSettings(
        state=state.absolute(),
        models=directories,
        keys=_keys(keys_path, state),
        recipe=training,
        faults=Faults(read(faults_path) if faults_path else (), fault_header),
        requests_per_minute=requests_per_minute,
    )


def _keys(keys_path: Path | None, state: Path) -> dict[str, str]:
    """Key -> tenant: from the environment, from the file, or a new key that is kept in the state directory."""
    if KEYS_VARIABLE in os.environ:
        return {str(key): str(tenant) for key, tenant in json.loads(os.environ.pop(KEYS_VARIABLE)).items()}
    path = keys_path or state / "keys"
    if keys_path is None and not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"local sk-rehearsal-{secrets.token_urlsafe(24)}\n")
        click.echo(f"an API key was created: it is the second word in {path}")
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
            # The line is not quoted: it may hold a key.
            raise Failure(Reason.USAGE, f"line {number} is not 'TENANT KEY'", where=f"--keys {path}")
        found[words[1]] = words[0]
    if not found:
        raise Failure(Reason.USAGE, "holds no key", where=f"--keys {path}")
    return found
