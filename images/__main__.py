"""`python -m images [NAME …]`: build the images and say where they are, as one JSON document."""

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
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--base", help="a base image for all, e.g. NAME@sha256:…; a local Debian by default")
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
