"""The files of a model, and a check that a directory holds a complete one. Needs no torch.

Weights are safetensors only: a pickle can run code when it is loaded, so none is fetched or accepted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.outcome import Failure, Reason

#: All other files of a repository or directory are ignored.
MODEL_PATTERNS = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def is_model_file(name: str) -> bool:
    """Whether a file at this relative path is part of a model."""
    path = Path(name)
    return len(path.parts) == 1 and any(path.match(pattern) for pattern in MODEL_PATTERNS)


def check_model(directory: Path, where: str = "") -> None:
    """Raise Failure(NO_SUCH_MODEL) with every reason why `directory` is not a loadable model."""
    problems = [*_config_problems(directory), *_weight_problems(directory)]
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        problems.append(f"no tokenizer: one of {', '.join(_TOKENIZERS)}")
    if problems:
        raise Failure(
            Reason.NO_SUCH_MODEL, "these files are not a model", where=where, problems=tuple(problems)
        )


def _config_problems(directory: Path) -> list[str]:
    config, problem = _json_object(directory / "config.json")
    if problem:
        return [problem]
    problems = []
    if not isinstance(config.get("model_type"), str):
        problems.append("config.json: no model_type")
    if config.get("auto_map"):
        problems.append("config.json: auto_map names code of the model, which is never run")
    return problems


def _weight_problems(directory: Path) -> list[str]:
    index_path = directory / "model.safetensors.index.json"
    expected = {"model.safetensors"}
    if index_path.is_file():
        index, problem = _json_object(index_path)
        weight_map = index.get("weight_map")
        if problem or not isinstance(weight_map, dict) or not weight_map:
            return [problem or "model.safetensors.index.json: no weight_map"]
        expected = {str(name) for name in weight_map.values()}
    problems = []
    for name in sorted(expected):
        if not is_model_file(name):
            problems.append(f"model.safetensors.index.json: '{name}' is not the name of a weight file")
        elif problem := _safetensors_problem(directory / name):
            problems.append(problem)
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
    if problems and pickles:
        problems.append(f"{', '.join(pickles)}: not accepted, pickles can run code; convert to safetensors")
    return problems


def _safetensors_problem(path: Path) -> str | None:
    """Problem of a file that must hold an 8-byte header length, a JSON header, then the data; None if valid."""
    if not path.is_file():
        return f"no {path.name}"
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            if not 2 <= header_bytes <= min(size - 8, 100_000_000):
                return f"{path.name}: not a safetensors file"
            header = json.loads(stream.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if not ends or max(ends) != size - 8 - header_bytes:
            return f"{path.name}: truncated or damaged"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{path.name}: not a safetensors file"
    return None


def _json_object(path: Path) -> tuple[dict[str, Any], str | None]:
    if not path.is_file():
        return {}, f"no {path.name}"
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return {}, f"{path.name}: not JSON"
    return (value, None) if isinstance(value, dict) else ({}, f"{path.name}: not a JSON object")
