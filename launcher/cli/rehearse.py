"""`launcher rehearse`: the hosted side's protocol on this machine, by a server that really trains."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.heavy import run_jobs


@click.command("rehearse")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="NAME=DIRECTORY",
    help="A model name on the wire and the directory (config.json, *.safetensors, tokenizer) of the open model that "
    "stands in for it. Can be repeated.",
)
@click.option(
    "--state",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the server's files, jobs and adapters. Started again with it, the server goes on.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on. Others need TLS in front."
)
@click.option("--port", default=8321, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option(
    "--keys",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Lines of 'TENANT KEY'; one tenant cannot see another's.  [default: a key made in STATE/keys]",
)
@click.option(
    "--requests-per-minute",
    default=10_000,
    show_default=True,
    type=click.IntRange(1),
    help="Requests a tenant may make in a minute before it gets 429.",
)
@click.option(
    "--faults",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON list of faults to commit on purpose (docs/hosted.md).  [default: none]",
)
@click.option("--fault-header", is_flag=True, help="Obey the header x-rehearsal-fault of a request.")
@click.option(
    "--recipe",
    help='JSON: how jobs train, such as {"learning_rate": 0.001}.  [default: as in jobs/rehearsal/recipe.py]',
)
def command(
    models: tuple[str, ...],
    state: Path,
    host: str,
    port: int,
    keys: Path | None,
    requests_per_minute: int,
    faults: Path | None,
    fault_header: bool,
    recipe: str | None,
) -> int:
    """Serve the OpenAI protocol for files, fine-tuning jobs, chat completions and batches; jobs really train.

    Any OpenAI SDK works against it. A status page with loss curves is at /, the OpenAPI description at /openapi.json.

    \b
    launcher rehearse --model gpt-4o-mini=models/smollm2 --state rehearsal
    export OPENAI_BASE_URL=http://127.0.0.1:8321/v1 OPENAI_API_KEY=$(cut -d' ' -f2 rehearsal/keys)
    """
    arguments = ["rehearse", "--state", str(state), "--host", host, "--port", str(port)]
    arguments += [word for model in models for word in ("--model", model)]
    arguments += ["--requests-per-minute", str(requests_per_minute)]
    arguments += ["--keys", str(keys)] if keys else []
    arguments += ["--faults", str(faults)] if faults else []
    arguments += ["--fault-header"] if fault_header else []
    arguments += ["--recipe", recipe] if recipe else []
    return run_jobs(arguments)
