"""`python -m images [NAME …]`: build the images and print their archives and digests as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from images.build import NAMES, build
from launcher.outcome import Failure


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m images", description="Build the images of this checkout."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--base", help="base image of all, for example NAME@sha256:…; default: a local Debian"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no image {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    try:
        built = build(tuple(options.names) or NAMES, base=options.base)
    except Failure as failure:
        print(failure.text(), file=sys.stderr)
        return failure.exit_code
    print(json.dumps([asdict(one) for one in built], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
