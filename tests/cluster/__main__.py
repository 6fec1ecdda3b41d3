"""`python -m tests.cluster build | up | down | status | load | site | during`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from . import images, node, places, processes
from .processes import ClusterError


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return int(arguments.verb(arguments) or 0)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def build(_: argparse.Namespace) -> None:
    began = time.monotonic()
    node.prepare()
    images.base_image()
    print(f"built in {time.monotonic() - began:.1f} s: {places.build_cache()}")


def up(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    state = node.up(arguments.gpus)
    print(f"up in {time.monotonic() - began:.1f} s")
    print(f"export KUBECONFIG={state.kubeconfig}")


def down(_: argparse.Namespace) -> None:
    began = time.monotonic()
    node.down()
    print(f"down in {time.monotonic() - began:.1f} s")


def status(_: argparse.Namespace) -> int:
    state = places.state()
    total_mib = 0.0
    for name in node.PROCESSES:
        pid = processes.running(state, name)
        mib = 0.0 if pid is None else _resident_mib(pid)
        total_mib += mib
        print(f"{name:20} {'not running' if pid is None else f'{pid:8} {mib:6.0f} MiB'}")
    whole = node.whole(state)
    print(f"{'whole' if whole else 'not whole'}, {total_mib:.0f} MiB resident; {state.directory}")
    return 0 if whole else 1


def load(arguments: argparse.Namespace) -> None:
    for archive in arguments.archives:
        print(images.load(places.state(), archive))


def site(arguments: argparse.Namespace) -> None:
    """Print a site file for this cluster; the Secret with the store's keys must be created."""
    server = node.s3(places.state())
    address = f"s3://{server.bucket}/runs?endpoint_url={server.address}&region=us-east-1"
    document = {
        "format": 1,
        "namespace": arguments.namespace,
        "store": {"outside": address, "inside": address},
        "secrets": {
            "store_access_key": {"secret": "store", "key": "access_key"},
            "store_secret_key": {"secret": "store", "key": "secret_key"},
        },
    }
    print(yaml.safe_dump(document, sort_keys=False), end="")


def during(arguments: argparse.Namespace) -> int:
    """Run a command with the cluster up; stop the cluster afterwards unless it was up before."""
    if os.environ.get("TUNEYARD_TEST_KUBECONFIG"):
        return subprocess.run(arguments.words).returncode
    was_up = places.state().complete.exists()
    node.up(arguments.gpus)
    try:
        return subprocess.run(arguments.words).returncode
    finally:
        if not was_up:
            node.down()


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    one = verbs.add_parser("build", help="build the programs and the base image if they are not cached")
    one.set_defaults(verb=build)
    one = verbs.add_parser("up", help="start the cluster; does nothing if it is up")
    one.add_argument("--gpus", type=int, help="how many GPUs the node pretends to have")
    one.set_defaults(verb=up)
    one = verbs.add_parser("down", help="remove every trace of it")
    one.set_defaults(verb=down)
    one = verbs.add_parser("status", help="its processes and their memory; exit 1 if one is missing")
    one.set_defaults(verb=status)
    one = verbs.add_parser("load", help="import image archives; prints name@digest for each")
    one.add_argument("archives", nargs="+", type=Path)
    one.set_defaults(verb=load)
    one = verbs.add_parser("site", help="print a site file for the launcher")
    one.add_argument("--namespace", default="tuneyard")
    one.set_defaults(verb=site)
    one = verbs.add_parser("during", help="run a command with the cluster up: during -- COMMAND …")
    one.add_argument("--gpus", type=int)
    one.add_argument("words", nargs="+")
    one.set_defaults(verb=during)
    return parser


if __name__ == "__main__":
    sys.exit(main())
