"""The data card: counts of a run's rows. See docs/data.md for its fields."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.data import tokens
from jobs.data.splits import conversation
from jobs.tasks.registry import Task, question_of
from jobs.tasks.rows import Parts, Row
from launcher.spec.experiment import Data

FORMAT = 1
#: What two rows may share. An equal gold alone is weak evidence of leakage: short answers are common.
_KEYS: dict[str, Callable[[Row], str]] = {
    "question": question_of,
    "gold": lambda row: row.gold,
    "row": lambda row: f"{conversation(row)}\n{row.gold}",
}


def build(task: Task, data: Data, parts: Parts, out: Path) -> dict[str, Any]:
    """The card of what `prepare` wrote into `out`: the parts, the uploads, and the faults that the task finds."""
    card: dict[str, Any] = {
        "format": FORMAT,
        "task": task.name,
        "source": data.source,
        "seed": data.seed,
        "tokenizer": tokens.ENCODING,
        "parts": {part: {**_file(out / f"{part}.jsonl"), **describe(rows)} for part, rows in parts.items()},
        "uploads": {part: _file(out / "upload" / f"{part}.jsonl") for part in ("train", "validation")},
        "leakage": leakage(parts),
        "notes": list(parts.notes),
    }
    if task.faults is not None:
        find = task.faults
        card["faults"] = [fault for part, rows in parts.items() for fault in find(part, rows, out)]
    return card


def describe(rows: Sequence[Row]) -> dict[str, Any]:
    """One part: rows, repetitions inside it, tokens of prompts and answers, training tokens an epoch."""
    described: dict[str, Any] = {
        "rows": len(rows),
        "repeated": {name: len(rows) - len({key(row) for row in rows}) for name, key in _KEYS.items()},
        "prompt_tokens": tokens.statistics([tokens.prompt_tokens(row) for row in rows]),
        "answer_tokens": tokens.statistics([tokens.answer_tokens(row) for row in rows]),
        "training_tokens": sum(tokens.training_tokens(row) for row in rows),
    }
    if databases := {row.fields["db_id"] for row in rows if "db_id" in row.fields}:
        described["databases"] = len(databases)
    return described


def leakage(parts: Parts) -> dict[str, dict[str, int]]:
    """Rows of a later part that share their question, gold, whole row or database with an earlier one."""
    found = {}
    for later, later_rows, earlier, earlier_rows in (
        ("validation", parts.validation, "train", parts.train),
        ("test", parts.test, "train", parts.train),
        ("test", parts.test, "validation", parts.validation),
    ):
        keys = dict(_KEYS)
        if any("db_id" in row.fields for row in later_rows):
            keys["database"] = lambda row: str(row.fields["db_id"])
        counts = {}
        for name, key in keys.items():
            known = {key(row) for row in earlier_rows}
            counts[name] = sum(key(row) in known for row in later_rows)
        found[f"{later} in {earlier}"] = counts
    return found


def _file(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def summary(card: dict[str, Any]) -> str:
    """The card in a few lines for a person."""
    lines = [f"{card['task']} from {card['source']}, seed {card['seed']} (tokens: {card['tokenizer']})"]
    for part, facts in card["parts"].items():
        line = f"  {part:<10} {facts['rows']:>6} rows"
        if facts["rows"]:
            prompt, answer = facts["prompt_tokens"], facts["answer_tokens"]
            line += (
                f", prompt {prompt['mean']:.0f} tokens (95 %: {prompt['p95']}), "
                f"answer {answer['mean']:.0f} (95 %: {answer['p95']}), "
                f"{facts['training_tokens']:,} training tokens an epoch"
            )
        lines.append(line)
    for part, facts in card["uploads"].items():
        lines.append(f"  upload/{part}.jsonl: {facts['size_bytes']:,} bytes, sha256 {facts['sha256'][:16]}…")
    for pair, counts in card["leakage"].items():
        shared = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        if shared:
            lines.append(f"  leakage, {pair}: rows that share their {shared}")
    lines += [
        f"  fault, {fault['part']}: {fault['rows']} of {fault['of']} rows: {fault['what']}"
        for fault in card.get("faults", ())
    ]
    lines += [f"  note: {note}" for note in card["notes"]]
    return "\n".join(lines)
