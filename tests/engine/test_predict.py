"""Answers are the model's greedy ones, in order, from fixed batches, and continue batch by batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Bench

from jobs.predict.batches import Prompt, batches
from launcher.outcome import DISPOSITIONS, Reason


def predictions(bench: Bench, name: str) -> list[dict[str, Any]]:
    lines = (bench.output(name) / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def answers(bench: Bench, name: str) -> list[tuple[str, str, str, int, int]]:
    keys = ("id", "answer", "finish", "prompt_tokens", "answer_tokens")
    return [tuple(item[key] for key in keys) for item in predictions(bench, name)]


def test_batches_are_longest_first_and_hold_every_row_once() -> None:
    prompts = [Prompt(row, (0,) * length) for row, length in enumerate([3, 9, 3, 5, 9])]
    assert [[prompt.row for prompt in batch] for batch in batches(prompts, 2)] == [[1, 4], [3, 0], [2]]


@pytest.mark.parametrize("instructions", ["", "answer in letters: "], ids=["nothing shared", "instructions"])
def test_greedy_answers_are_those_of_the_library(
    random_model: Path, tokenizer: Any, instructions: str
) -> None:
    import torch

    from jobs.models.generation import answer_batch
    from jobs.models.loading import load_model

    model = load_model(random_model, dtype="float32").eval()
    prompts = [tokenizer.encode(instructions + text) for text in ("a", "bcd ef", "ghijk lmno pqrs")]
    # A token that turns up soon, so that rows end at different times.
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


def test_every_test_row_is_answered_in_order_with_its_counts(bench: Bench) -> None:
    name = bench.predict()
    assert bench.run(name) == 0
    found = predictions(bench, name)
    assert [item["id"] for item in found] == [f"row-3-{number}" for number in range(5)]
    assert all(set(item) == KEYS for item in found)
    totals = json.loads((bench.output(name) / "prediction.json").read_text())
    assert totals["rows"] == 5
    assert totals["batches"] == 3
    assert totals["answer_tokens"] == sum(item["answer_tokens"] for item in found)


KEYS = {"id", "answer", "finish", "prompt_tokens", "answer_tokens", "latency_s"}


def test_a_finished_batch_is_kept_and_an_unfinished_one_is_redone(bench: Bench, tmp_path: Path) -> None:
    name = bench.predict()
    again = Bench(tmp_path / "again")
    again.predict()
    stored = f"runs/{again.plan().run_id}/work/{name}/{again.key(name)[:16]}/batches/000001.json"
    mark = {"answer": "kept", "finish": "stop", "prompt_tokens": 1, "answer_tokens": 1, "latency_s": 0.0}
    again.store.put_json(stored, {"answers": [mark, mark]})
    assert bench.run(name) == 0
    assert again.run(name) == 0
    kept = [item["answer"] == "kept" for item in predictions(again, name)]
    assert sum(kept) == 2
    for was_kept, one, other in zip(kept, answers(bench, name), answers(again, name), strict=True):
        assert was_kept or one == other


def test_a_merged_adapter_answers_as_peft_does(bench: Bench, random_model: Path) -> None:
    import torch
    from peft import PeftModel

    from jobs.models.generation import load
    from jobs.models.loading import load_model

    bench.train("train", steps=4, learning_rate=0.05)
    assert bench.run("train") == 0
    directory = bench.output("train")
    merged = load(random_model, directory, dtype="float32", device="cpu")
    base = load_model(random_model, dtype="float32").eval()
    tokens = torch.arange(5, 60)[None]
    with torch.no_grad():
        untuned = base(input_ids=tokens).logits
        expected = PeftModel.from_pretrained(base, str(directory)).eval()(input_ids=tokens).logits
        torch.testing.assert_close(merged(input_ids=tokens).logits, expected, atol=1e-4, rtol=1e-4)
    assert (untuned - expected).abs().max() > 0.1


def test_a_tuned_model_answers_otherwise_than_the_untuned_one(bench: Bench) -> None:
    bench.train("train", steps=12, batch_rows=8, learning_rate=0.05)
    tuned, untuned = bench.predict("tuned", adapter="train"), bench.predict("untuned")
    for name in ("train", tuned, untuned):
        assert bench.run(name) == 0
    assert [item[1] for item in answers(bench, tuned)] != [item[1] for item in answers(bench, untuned)]
    # Every gold answer is two or three letters and an end: the end is learnt first.
    assert "stop" in {item[2] for item in answers(bench, tuned)}


def test_a_prompt_the_model_cannot_read_is_refused_at_once(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    name = bench.predict(max_new_tokens=5000)
    assert bench.run(name) == DISPOSITIONS[Reason.BAD_DATA].exit_code
    assert "do not fit into the model's context of 4096" in capsys.readouterr().err
