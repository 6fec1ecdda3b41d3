"""Duration of a `launcher render` process: `python benchmarks/render_time.py`.

Prints wall clock and CPU seconds, best and median of several processes, for the built-in profiles that need no
network. The target is 0.5 s of wall clock on an idle machine. With two cores or more, Helm loads while
Python imports, so wall clock is less than CPU time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROFILES = ("smoke", "demo")
_IMAGE = "registry.example/{}@sha256:" + "0" * 64
_SITE = """
namespace: tuning
store: {{inside: "s3://runs/tuneyard?region=eu-west-1"}}
images: {{trainer: "{0}", worker: "{0}", conductor: "{0}"}}
"""


def measure(profile: str, site: Path) -> tuple[float, float]:
    """Wall clock and CPU seconds of one process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "launcher", "render", "sql", "--profile", profile, "--site", str(site)],
        stdout=subprocess.DEVNULL,
        check=True,
        # Use cached bytecode, as after an installation; the first, uncounted process of each profile writes it.
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    )
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=int, default=15, help="processes per profile (default 15)")
    times = parser.parse_args().times
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory) / "site.yaml"
        site.write_text(_SITE.format(_IMAGE.format("image")), encoding="utf-8")
        for profile in PROFILES:
            measure(profile, site)
            measured = [measure(profile, site) for _ in range(times)]
            wall_s, cpu_s = ([one[index] for one in measured] for index in (0, 1))
            print(
                f"{profile:10} wall {min(wall_s):.3f} s best, {statistics.median(wall_s):.3f} s median; "
                f"CPU {min(cpu_s):.3f} s best, {statistics.median(cpu_s):.3f} s median"
            )


if __name__ == "__main__":
    main()
