"""The Python process of a stage: threads, library versions, peak memory. Imports no numeric library."""

from __future__ import annotations

import os
import resource
import sys
from importlib import metadata

_DISTRIBUTIONS = ("tuneyard", "torch", "transformers", "peft", "deepspeed", "sqlglot", "apsw", "openai")


def pin_threads(threads: int) -> None:
    """Fix the number of threads, which can change results. Call before any numeric library is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Idle threads sleep: on shared cores, spinning threads made everything three to six times slower.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def library_versions() -> dict[str, str]:
    """Installed versions of Python and of every library that can change a result."""
    versions = {"python": sys.version.split()[0]}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def peak_memory_bytes(*, children: bool) -> int:
    """Peak resident memory of this process or, with `children`, the largest of it and its ended children."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if children:
        peak = max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return peak * unit
