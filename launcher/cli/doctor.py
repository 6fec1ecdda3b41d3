"""`launcher doctor`: is this installation able to run what the user wants?"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import click

from launcher import site
from launcher.cli.options import open_named_store, output_option, store_options
from launcher.cli.show import emit, table
from launcher.outcome import DISPOSITIONS, Failure, Reason

#: Module -> (distribution, what it is for, extra).
_MODULES = {
    "sqlglot": ("sqlglot", "scores", "score"),
    "torch": ("torch", "train and predict", "jobs"),
    "transformers": ("transformers", "train and predict", "jobs"),
    "peft": ("peft", "train", "jobs"),
    "deepspeed": ("deepspeed", "train", "jobs"),
    "gguf": ("gguf", "the demo's model", "jobs"),
    "bpe_openai": ("bpe-openai", "token counts", "jobs"),
}


@click.command("doctor")
@store_options
@output_option("table", "json", "yaml")
def command(store_address: str | None, site_path: Path | None, output: str) -> int:
    """Check this installation and this machine for local runs. The exit code is not 0 if something is missing."""
    checks: list[dict[str, str | bool]] = []

    def check(name: str, good: bool, found: str, advice: str = "") -> None:
        checks.append({"check": name, "ok": good, "found": found, "advice": "" if good else advice})

    check("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")
    for module, (distribution, purpose, extra) in _MODULES.items():
        there = importlib.util.find_spec(module) is not None
        try:
            found = metadata.version(distribution) if there else f"not installed (for: {purpose})"
        except metadata.PackageNotFoundError:
            found = "installed, version unknown"
        check(distribution, there, found, f"pip install 'tuneyard[{extra}]'")
    cores = os.cpu_count() or 1
    check("processors", cores >= 2, str(cores), "the demo expects two")
    gpu = Path("/dev/nvidiactl").exists()
    checks.append(
        {"check": "GPU", "ok": True, "found": "NVIDIA driver" if gpu else "none (CPU only)", "advice": ""}
    )
    try:
        site.load(site_path)
        store = open_named_store(store_address, site_path, writable=True)
        free_gib = shutil.disk_usage(store.local_root).free / 2**30
        check(
            "store",
            free_gib > 4,
            f"{store.address}, {free_gib:.0f} GiB free",
            "free space or name another --store",
        )
    except Failure as failure:
        check("store", False, failure.what, failure.next_step)
    if output == "table":
        rows = [
            ["ok" if c["ok"] else "MISSING", str(c["check"]), str(c["found"]), str(c["advice"])]
            for c in checks
        ]
        table(["STATE", "CHECK", "FOUND", "ADVICE"], rows)
    else:
        emit(checks, output)
    return 0 if all(c["ok"] for c in checks) else DISPOSITIONS[Reason.UNSUPPORTED].exit_code
