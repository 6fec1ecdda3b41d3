"""ViGGO, a sentence about a video game to its meaning representation: the study's prompts, byte for byte."""

from __future__ import annotations

from jobs.tasks.rows import Row

FUNCTIONS = (
    "inform",
    "request",
    "give_opinion",
    "confirm",
    "verify_attribute",
    "suggest",
    "request_explanation",
    "recommend",
    "request_attribute",
)
ATTRIBUTES = (
    "name",
    "exp_release_date",
    "release_year",
    "developer",
    "esrb",
    "rating",
    "genres",
    "player_perspective",
    "has_multiplayer",
    "platforms",
    "available_on_steam",
    "has_linux_release",
    "has_mac_release",
    "specifier",
)
INSTRUCTION = (
    "Given a target sentence construct the underlying meaning representation of the input sentence as a "
    "single function with attributes and attribute values. This function should describe the target string "
    f"accurately and the function must be one of the following {list(FUNCTIONS)}. "
    f"The attributes must be one of the following: {list(ATTRIBUTES)}"
)


def make_row(row_id: str, *, target: str, meaning: str) -> Row:
    """A sentence (`target`) with its meaning representation, the gold answer."""
    messages = (
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": target},
        {"role": "assistant", "content": meaning},
    )
    return Row(row_id, messages, {"task": "viggo", "target": target})


def plain_prompt(row: Row) -> str:
    """The study's completion prompt for open models; the answer follows directly."""
    return f"{INSTRUCTION}\n\n### Target sentence:\n{row.fields['target']}\n\n### Meaning representation:\n"
