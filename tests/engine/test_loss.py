"""The loss and the adapter do not depend on packing, accumulation or the number of workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stage_harness import StageHarness, rows

from jobs.methods.microbatches import IGNORE_INDEX, microbatches
from jobs.models.examples import Example, example

TOLERANCE = 1e-4


def losses(
    model: Any, items: list[Example], *, limit_tokens: int, packing: bool, share_prefix: bool = False
) -> float:
    """The loss summed over the micro-batches of `items`, computed independently from all logits."""
    import torch

    ((*batches,),) = microbatches(
        items, limit_tokens=limit_tokens, packing=packing, workers=1, share_prefix=share_prefix
    )
    assert any(batch.prefix for batch in batches) is share_prefix
    total = 0.0
    for batch in batches:
        with torch.no_grad():
            cache = None
            if batch.prefix:
                cache = model(input_ids=torch.tensor([batch.prefix]), use_cache=True).past_key_values
                cache.batch_repeat_interleave(len(batch.tokens))
            logits = model(
                input_ids=torch.tensor(batch.tokens),
                position_ids=torch.tensor(batch.positions),
                past_key_values=cache,
                use_cache=cache is not None,  # with a cache, restarting positions are one sequence
            ).logits
        total += float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1),
                torch.tensor(batch.targets).flatten(),
                ignore_index=IGNORE_INDEX,
                reduction="sum",
            )
        )
    return total


def test_packed_padded_and_prefix_loss_equal_the_loss_of_each_row(random_model: Path, tokenizer: Any) -> None:
    from jobs.models.loading import load_model

    model = load_model(random_model, dtype="float32").eval()
    items = [example(row, tokenizer, "chat", "answer") for row in rows(12)]
    alone = sum(losses(model, [item], limit_tokens=512, packing=True) for item in items)
    assert losses(model, items, limit_tokens=512, packing=True) == pytest.approx(alone, rel=TOLERANCE)
    assert losses(model, items, limit_tokens=128, packing=True) == pytest.approx(alone, rel=TOLERANCE)
    assert losses(model, items, limit_tokens=512, packing=False) == pytest.approx(alone, rel=TOLERANCE)
    assert losses(model, items, limit_tokens=512, packing=False, share_prefix=True) == pytest.approx(
        alone, rel=TOLERANCE
    )


def curve(harness: StageHarness, name: str) -> list[dict[str, float]]:
    lines = (harness.output(name) / "curve.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(harness: StageHarness, name: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(harness.output(name) / "adapter_model.safetensors"))


def assert_same_training(harness: StageHarness, one: str, other: str) -> None:
    import torch

    for left, right in zip(curve(harness, one), curve(harness, other), strict=True):
        assert left == pytest.approx(right, rel=TOLERANCE)
    for name, value in weights(harness, one).items():
        torch.testing.assert_close(value, weights(harness, other)[name], rtol=1e-3, atol=TOLERANCE)


@pytest.mark.parametrize(
    "other",
    [
        {"micro_batch_tokens": 64, "max_length_tokens": 64},
        {"packing": False},
        {"packing": False, "micro_batch_tokens": 64, "max_length_tokens": 64},
        {"recompute": True},
        {"zero_stage": 0},
        {"zero_stage": 3},
    ],
    ids=str,
)
def test_training_does_not_depend_on_the_layout(harness: StageHarness, other: dict[str, Any]) -> None:
    for name, training in (("whole", {}), ("other", other)):
        harness.train(name, **{"steps": 3, "max_length_tokens": 64, **training})
        assert harness.run(name) == 0
    assert_same_training(harness, "whole", "other")


@pytest.mark.parametrize(
    "packing",
    [pytest.param(True, id="packed"), pytest.param(False, id="padded", marks=pytest.mark.slow)],
)
def test_two_workers_train_the_adapter_of_one(harness: StageHarness, packing: bool) -> None:
    harness.train("one", steps=3, packing=packing)
    harness.train("two", steps=3, packing=packing, processes=2)
    assert harness.run("one") == 0
    assert harness.run("two") == 0
    assert_same_training(harness, "one", "two")


def test_the_same_training_gives_the_same_bytes(harness: StageHarness, tmp_path: Path) -> None:
    again = StageHarness(tmp_path / "again")
    for each in (harness, again):
        each.train("train", steps=2, batch_rows=3)
        assert each.run("train") == 0
    files = sorted(path.name for path in harness.output("train").iterdir() if path.name != "_SUCCESS.json")
    assert files == ["adapter_config.json", "adapter_model.safetensors", "curve.jsonl", "training.json"]
    for file in files:
        assert (harness.output("train") / file).read_bytes() == (again.output("train") / file).read_bytes()


def test_training_lowers_the_loss_and_records_its_facts(harness: StageHarness) -> None:
    harness.train("train", steps=8)
    assert harness.run("train") == 0
    recorded = curve(harness, "train")
    facts = json.loads((harness.output("train") / "training.json").read_text())
    assert [entry["step"] for entry in recorded] == list(range(1, 9))
    assert [entry["step"] for entry in recorded if "validation_loss" in entry] == [3, 6, 8]
    assert recorded[-1]["loss"] < recorded[0]["loss"]
    assert facts["trained_tokens"] == recorded[-1]["trained_tokens"] < facts["tokens"]
    assert facts["rows_seen"] == 32
    assert facts["base_model"] == "random"
