"""The loss and the adapter do not depend on packing, accumulation or the number of workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, rows

from jobs.methods.microbatches import IGNORE_INDEX, microbatches
from jobs.models.examples import Example, example

ALIKE = 1e-4


def losses(
    model: Any, items: list[Example], *, limit_tokens: int, packing: bool, share_prefix: bool = False
) -> float:
    """The summed loss over the micro-batches of `items`, computed here from all logits."""
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
                use_cache=cache is not None,  # with one, restarting positions are taken for one sequence
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


def test_packed_padded_and_shared_loss_equal_the_loss_of_each_row_alone(
    random_model: Path, tokenizer: Any
) -> None:
    from jobs.models.loading import load_model

    model = load_model(random_model, dtype="float32").eval()
    items = [example(row, tokenizer, "chat", "answer") for row in rows(12)]
    alone = sum(losses(model, [item], limit_tokens=512, packing=True) for item in items)
    assert losses(model, items, limit_tokens=512, packing=True) == pytest.approx(alone, rel=ALIKE)
    assert losses(model, items, limit_tokens=128, packing=True) == pytest.approx(alone, rel=ALIKE)
    assert losses(model, items, limit_tokens=512, packing=False) == pytest.approx(alone, rel=ALIKE)
    assert losses(model, items, limit_tokens=512, packing=False, share_prefix=True) == pytest.approx(
        alone, rel=ALIKE
    )


def curve(bench: Bench, name: str) -> list[dict[str, float]]:
    lines = (bench.output(name) / "curve.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(bench: Bench, name: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(bench.output(name) / "adapter_model.safetensors"))


def assert_same_training(bench: Bench, one: str, other: str) -> None:
    import torch

    for left, right in zip(curve(bench, one), curve(bench, other), strict=True):
        assert left == pytest.approx(right, rel=ALIKE)
    for name, value in weights(bench, one).items():
        torch.testing.assert_close(value, weights(bench, other)[name], rtol=1e-3, atol=ALIKE)


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
def test_one_training_whatever_the_layout(bench: Bench, other: dict[str, Any]) -> None:
    for name, training in (("whole", {}), ("other", other)):
        bench.train(name, **{"steps": 3, "max_length_tokens": 64, **training})
        assert bench.run(name) == 0
    assert_same_training(bench, "whole", "other")


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
def test_two_workers_train_what_one_does(bench: Bench, packing: bool) -> None:
    bench.train("one", steps=3, packing=packing)
    bench.train("two", steps=3, packing=packing, processes=2)
    assert bench.run("one") == 0
    assert bench.run("two") == 0
    assert_same_training(bench, "one", "two")


def test_the_same_training_gives_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    again = Bench(tmp_path / "again")
    for each in (bench, again):
        each.train("train", steps=2, batch_rows=3)
        assert each.run("train") == 0
    files = sorted(path.name for path in bench.output("train").iterdir() if path.name != "_SUCCESS.json")
    assert files == ["adapter_config.json", "adapter_model.safetensors", "curve.jsonl", "training.json"]
    for file in files:
        assert (bench.output("train") / file).read_bytes() == (again.output("train") / file).read_bytes()


def test_training_lowers_the_loss_and_is_written_down(bench: Bench) -> None:
    bench.train("train", steps=8)
    assert bench.run("train") == 0
    recorded = curve(bench, "train")
    facts = json.loads((bench.output("train") / "training.json").read_text())
    assert [entry["step"] for entry in recorded] == list(range(1, 9))
    assert [entry["step"] for entry in recorded if "validation_loss" in entry] == [3, 6, 8]
    assert recorded[-1]["loss"] < recorded[0]["loss"]
    assert facts["trained_tokens"] == recorded[-1]["trained_tokens"] < facts["tokens"]
    assert facts["rows_seen"] == 32
    assert facts["base_model"] == "random"
