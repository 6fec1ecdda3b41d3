"""Greedy answers in the order of the rows, from fixed batches, resumed batch by batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stage_harness import StageHarness

from jobs.predict.batches import Prompt, batches
from launcher.outcome import DISPOSITIONS, Reason


def predictions(harness: StageHarness, name: str) -> list[dict[str, Any]]:
    lines = (harness.output(name) / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def answers(harness: StageHarness, name: str) -> list[tuple[str, str, str, int, int]]:
    keys = ("id", "answer", "finish", "prompt_tokens", "answer_tokens")
    return [tuple(item[key] for key in keys) for item in predictions(harness, name)]


def test_batches_are_longest_first_and_hold_every_row_once() -> None:
    prompts = [Prompt(row, (0,) * length) for row, length in enumerate([3, 9, 3, 5, 9])]
    assert [[prompt.row for prompt in batch] for batch in batches(prompts, 2)] == [[1, 4], [3, 0], [2]]


@pytest.mark.parametrize("instructions", ["", "answer in letters: "], ids=["no prefix", "common prefix"])
def test_greedy_answers_equal_those_of_transformers(
    random_model: Path, tokenizer: Any, instructions: str
) -> None:
    import torch

    from jobs.models.generation import answer_batch
    from jobs.models.loading import load_model

    model = load_model(random_model, dtype="float32").eval()
    prompts = [tokenizer.encode(instructions + text) for text in ("a", "bcd ef", "ghijk lmno pqrs")]
    # A token that occurs early, so that rows end at different steps.
    free = answer_batch(model, prompts, ends=frozenset(), max_new_tokens=12)
    end = free[1].tokens[3]
    found = answer_batch(model, prompts, ends=frozenset({end}), max_new_tokens=12)
    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    library = model.generate(
        input_ids=padded,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=end,
        pad_token_id=0,
    )
    for item, row in zip(found, library[:, width:].tolist(), strict=True):
        expected = row[: row.index(end)] if end in row else row
        assert list(item.tokens) == expected
        assert item.finish == ("stop" if end in row else "length")
    assert "stop" in {item.finish for item in found}


def test_every_row_is_answered_in_order_with_token_counts(harness: StageHarness) -> None:
    name = harness.predict()
    assert harness.run(name) == 0
    found = predictions(harness, name)
    assert [item["id"] for item in found] == [f"row-3-{number}" for number in range(5)]
    assert all(set(item) == KEYS for item in found)
    totals = json.loads((harness.output(name) / "prediction.json").read_text())
    assert totals["rows"] == 5
    assert totals["batches"] == 3
    assert totals["answer_tokens"] == sum(item["answer_tokens"] for item in found)


KEYS = {"id", "answer", "finish", "prompt_tokens", "answer_tokens", "latency_s"}


def test_finished_batches_are_resumed_and_others_repeated(harness: StageHarness, tmp_path: Path) -> None:
    name = harness.predict()
    again = StageHarness(tmp_path / "again")
    again.predict()
    stored = f"runs/{again.plan().run_id}/work/{name}/{again.key(name)[:16]}/batches/000001.json"
    mark = {"answer": "kept", "finish": "stop", "prompt_tokens": 1, "answer_tokens": 1, "latency_s": 0.0}
    again.store.put_json(stored, {"answers": [mark, mark]})
    assert harness.run(name) == 0
    assert again.run(name) == 0
    kept = [item["answer"] == "kept" for item in predictions(again, name)]
    assert sum(kept) == 2
    for was_kept, one, other in zip(kept, answers(harness, name), answers(again, name), strict=True):
        assert was_kept or one == other


def test_a_merged_adapter_computes_the_logits_of_peft(harness: StageHarness, random_model: Path) -> None:
    import torch
    from peft import PeftModel

    from jobs.models.generation import load
    from jobs.models.loading import load_model

    harness.train("train", steps=4, learning_rate=0.05)
    assert harness.run("train") == 0
    directory = harness.output("train")
    merged = load(random_model, directory, dtype="float32", device="cpu")
    base = load_model(random_model, dtype="float32").eval()
    tokens = torch.arange(5, 60)[None]
    with torch.no_grad():
        untuned = base(input_ids=tokens).logits
        expected = PeftModel.from_pretrained(base, str(directory)).eval()(input_ids=tokens).logits
        torch.testing.assert_close(merged(input_ids=tokens).logits, expected, atol=1e-4, rtol=1e-4)
    assert (untuned - expected).abs().max() > 0.1


def test_a_tuned_model_gives_other_answers(harness: StageHarness) -> None:
    harness.train("train", steps=12, batch_rows=8, learning_rate=0.05)
    tuned, untuned = harness.predict("tuned", adapter="train"), harness.predict("untuned")
    for name in ("train", tuned, untuned):
        assert harness.run(name) == 0
    assert [item[1] for item in answers(harness, tuned)] != [item[1] for item in answers(harness, untuned)]
    # Every gold answer is three letters and an end: the end is learned first.
    assert "stop" in {item[2] for item in answers(harness, tuned)}


def test_a_prompt_longer_than_the_context_is_bad_data(
    harness: StageHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    name = harness.predict(max_new_tokens=5000)
    assert harness.run(name) == DISPOSITIONS[Reason.BAD_DATA].exit_code
    assert "do not fit into the model's context of 4096" in capsys.readouterr().err
