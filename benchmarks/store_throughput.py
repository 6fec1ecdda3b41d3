"""Throughput of the store against `s5cmd` and `rclone copy`, to the same server, in one run.

    python benchmarks/store_throughput.py --server rclone --gib 1 --rounds 3

Each round uploads and then downloads the same bytes with each tool, in rotating order: one large file, then
`--files` small ones. The result is the median over rounds of the ratio to s5cmd in the same round. Only the
store verifies the sha256 of what it reads. Needs the extra `test`; starts a server on loopback and stops it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "store"))
from s3_servers import ACCESS_KEY, SECRET_KEY, Server, binary, serve

from launcher.store.address import S3Address
from launcher.store.s3 import S3Store
from launcher.store.s3_client import Client

TOOLS = ("tuneyard", "s5cmd", "rclone")


class TransferBench:
    """Uploads directories to one bucket and downloads them again."""

    def __init__(self, server: Server, work: Path) -> None:
        self.server, self.work = server, work
        self.bucket = f"bench-{uuid.uuid4().hex[:8]}"
        self.address = S3Address(self.bucket, "store", endpoint_url=server.endpoint)
        Client(self.address).call("create_bucket", Bucket=self.bucket)
        self.environment = {
            **os.environ,
            "AWS_REGION": "us-east-1",
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CONFIG_B_TYPE": "s3",
            "RCLONE_CONFIG_B_PROVIDER": "Other",
            "RCLONE_CONFIG_B_ENDPOINT": server.endpoint,
            "RCLONE_CONFIG_B_ACCESS_KEY_ID": ACCESS_KEY,
            "RCLONE_CONFIG_B_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def _tool(self, *command: str) -> float:
        started = time.monotonic()
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.environment
        )
        return time.monotonic() - started

    def up(self, tool: str, source: Path, name: str) -> float:
        """Seconds to upload the directory `source`."""
        if tool == "s5cmd":
            base = [binary("s5cmd") or "s5cmd", "--endpoint-url", self.server.endpoint, "cp"]
            return self._tool(*base, f"{source}/", f"s3://{self.bucket}/{tool}/{name}/")
        if tool == "rclone":
            return self._tool(
                binary("rclone") or "rclone",
                "copy",
                "--transfers",
                "8",
                str(source),
                f"b:{self.bucket}/rc/{name}",
            )
        copy = self.work / f"copy-{uuid.uuid4().hex[:6]}"
        shutil.copytree(source, copy, copy_function=os.link)
        store = self._store("writer")
        started = time.monotonic()
        store.commit(f"runs/{name}/artifact", copy, {})
        return time.monotonic() - started

    def down(self, tool: str, target: Path, name: str) -> float:
        """Seconds to download into the new directory `target`."""
        target.mkdir()
        if tool == "s5cmd":
            base = [binary("s5cmd") or "s5cmd", "--endpoint-url", self.server.endpoint, "cp"]
            return self._tool(*base, f"s3://{self.bucket}/{tool}/{name}/*", f"{target}/")
        if tool == "rclone":
            return self._tool(
                binary("rclone") or "rclone",
                "copy",
                "--transfers",
                "8",
                f"b:{self.bucket}/rc/{name}",
                str(target),
            )
        store = self._store(target.name)
        started = time.monotonic()
        store.open(f"runs/{name}/artifact").directory()
        return time.monotonic() - started

    def _store(self, machine: str) -> S3Store:
        base = self.work / "machines" / machine
        return S3Store(self.address, state=base / "state", cache=base / "cache")

    def objects(self, name: str) -> int:
        """Number of objects of an artifact in the store."""
        return sum(1 for _ in Client(self.address).objects(f"store/runs/{name}/"))

    def clear(self) -> None:
        """Delete all objects, so that disk usage stays that of one round."""
        client = Client(self.address)
        client.delete([stat.key for stat in client.objects("")])


def make(directory: Path, files: int, total_bytes: int) -> None:
    generator = random.Random(files)
    for number in range(files):
        path = directory / f"{number // 1000:03d}" / f"{number:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            left = total_bytes // files
            while left:
                piece = generator.randbytes(min(left, 8 << 20))
                stream.write(piece)
                left -= len(piece)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", choices=("rclone", "versitygw", "moto"), default="rclone")
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("large", "small"))
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY=SECRET_KEY)
    total = int(options.gib * (1 << 30))
    results: dict[str, dict[str, list[float]]] = {}
    objects: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as scratch:
        work = Path(scratch)
        with serve(options.server, work / "server") as server:
            bench = TransferBench(server, work)
            for shape, files in (("large", 1), ("small", options.files)):
                if options.only in (None, shape):
                    source = work / shape
                    make(source, files, total)
                    objects[shape] = run_shape(bench, shape, source, options.rounds, results)
                    shutil.rmtree(source)
    report(results, objects, total, options)
    return 0


def run_shape(
    bench: TransferBench, shape: str, source: Path, rounds: int, results: dict[str, dict[str, list[float]]]
) -> int:
    """Run all rounds of one shape; return the number of objects of the store's artifact."""
    objects = 0
    for number in range(rounds):
        order = list(TOOLS[number % 3 :] + TOOLS[: number % 3])
        for direction in ("up", "down"):
            for tool in order:
                os.sync()
                name = f"{shape}-{number}"
                target = bench.work / f"{tool}-{name}"
                move: Callable[[], float] = (
                    (lambda tool=tool, name=name: bench.up(tool, source, name))
                    if direction == "up"
                    else (lambda tool=tool, name=name, target=target: bench.down(tool, target, name))
                )
                seconds = move()
                results.setdefault(f"{shape} {direction}", {}).setdefault(tool, []).append(seconds)
                print(f"  round {number} {shape:5} {direction:4} {tool:9} {seconds:7.2f} s", file=sys.stderr)
                shutil.rmtree(target, ignore_errors=True)
                shutil.rmtree(bench.work / "machines" / target.name, ignore_errors=True)
        objects = bench.objects(f"{shape}-{number}")
        bench.clear()
    return objects


def report(
    results: dict[str, dict[str, list[float]]],
    objects: dict[str, int],
    total: int,
    options: argparse.Namespace,
) -> None:
    rows = {}
    print(
        f"{total / 1e9:.2f} GB, server {options.server}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':12} {'tuneyard':>12} {'s5cmd':>12} {'rclone copy':>12}   ratio to s5cmd (median of rounds)")
    for what, times in results.items():
        rates = {tool: total / 1e6 / statistics.median(seconds) for tool, seconds in times.items()}
        ratio = statistics.median(s / t for s, t in zip(times["s5cmd"], times["tuneyard"], strict=True))
        rows[what] = {"mb_per_s": rates, "ratio_to_s5cmd": ratio, "seconds": times}
        shown = " ".join(f"{rates[tool]:7.0f} MB/s" for tool in TOOLS)
        print(f"{what:12} {shown}   {ratio:.2f}")
    for shape, count in objects.items():
        print(f"{shape}: {count} objects hold the artifact")
    print(json.dumps({"machine": platform.platform(), "results": rows, "objects": objects}))


if __name__ == "__main__":
    sys.exit(main())
