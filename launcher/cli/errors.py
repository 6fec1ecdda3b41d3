"""Error output of every command: one message on stderr, and the exit code of its reason."""

from __future__ import annotations

import os
import sys

from launcher.outcome import DISPOSITIONS, Failure, Reason

#: Importable package -> the extra of pyproject.toml that installs it.
EXTRAS = {
    "apsw": "score",
    "sqlglot": "score",
    "openai": "hosted",
    **dict.fromkeys(
        (
            "bpe_openai",
            "deepspeed",
            "gguf",
            "huggingface_hub",
            "multipart",
            "ninja",
            "numpy",
            "peft",
            "python_multipart",
            "safetensors",
            "starlette",
            "torch",
            "transformers",
            "uvicorn",
        ),
        "jobs",
    ),
}

#: Verbs that work on the user's own files, without a run: nothing is submitted or retried.
_WITHOUT_A_RUN = frozenset({"data", "rehearse", "score"})
_NEXT_STEPS = {
    Reason.BAD_DATA: "correct what is listed, then run the same command again",
    Reason.MISSING_INPUT: "correct the path",
}


def report(error: Exception, verb: str) -> int:
    """Print `error` of `launcher VERB` on stderr; the exit code for it.

    An unexpected error is raised again if TUNEYARD_TRACEBACK is set.
    """
    failure = error if isinstance(error, Failure) else _missing_package(error, verb)
    if failure is None:
        if os.environ.get("TUNEYARD_TRACEBACK"):
            raise error
        failure = Failure(
            Reason.INTERNAL,
            f"{type(error).__name__}: {error}",
            next_step="please report it, with the output of the same command under TUNEYARD_TRACEBACK=1",
        )
    print(f"error: {_with_next_step(failure, verb).text()}", file=sys.stderr)
    return failure.exit_code


def _missing_package(error: Exception, verb: str) -> Failure | None:
    """The failure of a command whose extra is not installed; None for any other error."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package not in EXTRAS:
        return None
    return Failure(
        Reason.UNSUPPORTED,
        f"package '{package}' is not installed",
        where=f"launcher {verb}",
        next_step=f"pip install 'tuneyard[{EXTRAS[package]}]'",
    )


def _with_next_step(failure: Failure, verb: str) -> Failure:
    """The same failure; in a verb without a run, the general advice of its reason becomes the verb's own."""
    if verb not in _WITHOUT_A_RUN or failure.next_step != DISPOSITIONS[failure.reason].advice:
        return failure
    step = f"launcher {verb} --help" if failure.reason is Reason.USAGE else _NEXT_STEPS.get(failure.reason)
    return failure if step is None else failure.with_next_step(step)
