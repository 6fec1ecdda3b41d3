"""The verdict: digest, costs from the receipt, and a report page that hostile text cannot break."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import LORA, UNTUNED, commit_everything, make_plan, make_results

from launcher.costs import receipt
from launcher.outcome import Failure, Reason
from launcher.runs import report_page, verdict
from launcher.store import DirectoryStore
from launcher.store.runs import Attempt

HOSTILE = [
    "`", "```", "a`b``c```d", "|", "\\|", "a | b | c", "| --- |", "<script>alert(1)</script>", "<!-- ", "&lt;",
    "# heading", "\n# heading\n", "\r\n| a |\r\n", "\x0b\x0c\x85\u2028\u2029", "\x00\x1b[2J\x07", "\u202ereversed",
    "![x](http://tracker.example/pixel)", "[click](javascript:alert(1))", "**bold** _it_ ~~s~~", "- list\n- list",
    "", " ", "\\", "\\\\", "\\`", "$x$", "😀" * 500, "x" * 1_000_000, "](", "<http://evil.example>",
]  # fmt: skip


def document(text: str = "SELECT 1", **lines: dict[str, Any]) -> dict[str, Any]:
    """A verdict of the tiny run; `lines` are changes to its receipt's lines, by stage (`_` for `-`)."""
    plan = make_plan()
    stages = []
    for stage in plan.stages:
        line = {
            "stage": stage.name,
            "device": "cpu",
            "seconds": 2.0,
            "seconds_lost": 0.0,
            "seconds_failed": 0.0,
            "peak_memory_bytes": None,
            "usd": None,
        }
        stages.append({**line, **lines.get(stage.name.replace("-", "_"), {})})
    paid = {
        "stages": stages,
        "seconds": 16.0,
        "seconds_lost": 0.0,
        "seconds_failed": 0.0,
        "usd": None,
        "prices": [],
    }
    results = make_results(text)
    measured = receipt.Receipt.read(paid, "receipt.json")
    made = verdict.Verdict(
        run_id=plan.run_id,
        summary=verdict._summary(results),
        results_digest=results.digest(),
        results=results,
        costs=[verdict._cost(plan, contender, results, measured) for contender in results.contenders],
        receipt=measured,
    )
    return made.model_dump(mode="json")


def cells(line: str) -> int:
    """Cells of a table's row as a Markdown reader counts them."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


def tables(page: str) -> list[list[str]]:
    found: list[list[str]] = []
    previous = ""
    for line in page.split("\n"):
        if line.startswith("|"):
            if not previous.startswith("|"):
                found.append([])
            found[-1].append(line)
        previous = line
    return found


def skeleton(page: str) -> list[str]:
    """What kind of line each line is: hostile text may change words, never the structure."""
    kinds = {"#": "heading", "|": "table", "-": "item", "*": "bold", "": "empty"}
    return [kinds.get(line[:1], "text") for line in page.split("\n")]


def assert_unbroken(page: str) -> None:
    assert len(page) < 60_000
    assert skeleton(page) == skeleton(report_page.render(document("SELECT 2")))
    for table in tables(page):
        assert len({cells(line) for line in table}) == 1, table
        assert re.fullmatch(r"\|( --- \|)+", table[1])
    # Left to right, as Markdown is read: an escaped character, or a code span.
    rest = re.sub(r"\\[\\`*_{}\[\]<>#|&~]|`[^`\n]*`", "", page)
    assert not set("`<&") & set(rest)
    assert "](" not in rest, "a link or an image"
    assert all(c.isprintable() or c == "\n" for c in page)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_hostile_model_output_cannot_break_the_page(text: str) -> None:
    assert_unbroken(report_page.render(document(text)))


@given(st.text(alphabet="`|\\<>[]()!*_#-&~\n\r\x00 a\u2028", max_size=40))
@settings(deadline=None, max_examples=150)
def test_random_markup_cannot_break_the_page(text: str) -> None:
    assert_unbroken(report_page.render(document(text)))


def test_plain_answers_are_shown_unchanged() -> None:
    page = report_page.render(document("SELECT a FROM b WHERE c < 3"))
    assert "gold: `SELECT a FROM b WHERE c < 3`" in page


def test_page_has_summary_sections_and_caveats() -> None:
    page = report_page.render(document())
    assert (
        "lora answers 75.0 % of 8 sample questions (strict), +50.0 points [+10.0, +80.0] against untuned."
        in page
    )
    for heading in (
        "Accuracy",
        "Cost",
        "Comparison",
        "Loss",
        "Samples",
        "Receipt",
        "What the numbers do not show",
    ):
        assert f"\n## {heading}\n" in page
    for caveat in ("- one seed", "- a known fault"):
        assert caveat in page


def test_unpriced_device_is_not_shown_as_free() -> None:
    page = report_page.render(document())
    assert "not priced" in page
    assert "$0.0000" not in page


def test_prices_have_source_and_date() -> None:
    hosted = {"model": "gpt-x", "training": 8.0, "tuned_input": 12.0, "tuned_output": None, "input": None}
    source = {"source": "a price list", "date": "2023-08-22"}
    paid = {
        "prices": [{"device": "NVIDIA-A40", "usd": 0.475, **source}],
        "hosted_prices": [{**hosted, "output": None, **source}],
    }
    assert report_page.price_lines(
        receipt.Receipt.read({"stages": [], "seconds": 0.0, **paid}, "receipt.json")
    ) == [
        "NVIDIA-A40: $0.475 per hour, a price list, 2023-08-22",
        "gpt-x: training $8.0, tuned in $12.0 per million tokens, a price list, 2023-08-22",
    ]


def test_cost_per_correct_answer_comes_from_the_receipt() -> None:
    made = document(
        predict_lora_s1={"usd": 0.3, "seconds": 10.0},
        train_lora_s1={"usd": 1.5},
        predict_untuned={"usd": 0.2},
    )
    lora, untuned = ({c["name"]: c for c in made["costs"]}[name] for name in ("lora", "untuned"))
    assert (lora["training_usd"], lora["answering_usd"], lora["answering_seconds"]) == (1.5, 0.3, 10.0)
    assert lora["usd_per_correct_answer"] == pytest.approx(0.3 / 6)
    assert (untuned["training_seconds"], untuned["training_usd"]) == (None, None)
    assert untuned["usd_per_correct_answer"] == pytest.approx(0.2 / 2)


def test_digest_does_not_depend_on_the_receipt() -> None:
    cheap, dear = document(), document(predict_lora_s1={"usd": 9.0, "seconds": 1e6, "seconds_lost": 3.0})
    assert cheap["results_digest"] == dear["results_digest"]
    assert cheap["costs"] != dear["costs"]
    assert document("SELECT 2")["results_digest"] != cheap["results_digest"]


def test_digest_survives_serialization() -> None:
    results = make_results("ü|`\n")
    assert type(results).model_validate_json(results.model_dump_json()).digest() == results.digest()


def test_verdict_is_built_from_the_runs_artifacts(store: DirectoryStore) -> None:
    plan = make_plan(contenders=[UNTUNED, LORA])
    commit_everything(plan, store)
    attempt = Attempt(store, plan.run_id, 1)
    made = verdict.build(plan, store, receipt.build(plan, store, attempt))
    assert made["results_digest"] == make_results().digest()
    assert json.loads(json.dumps(made)) == made
    assert_unbroken(report_page.render(made))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 2}'])
def test_invalid_results_are_a_corrupt_artifact(store: DirectoryStore, data: bytes) -> None:
    plan = make_plan()
    out = store.root / "to-commit"
    out.mkdir()
    (out / "results.json").write_bytes(data)
    store.commit(f"stages/{plan.stage('report').key}", out, {})
    with pytest.raises(Failure) as caught:
        verdict.build(plan, store, {"stages": []})
    assert caught.value.reason is Reason.CORRUPT_ARTIFACT


@pytest.mark.parametrize("change", [{"format": 2}, {"results": {}}, {"summary": None}, {"extra": 1}])
def test_invalid_verdict_is_a_corrupt_artifact(change: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        report_page.render({**document(), **change})
    assert caught.value.reason is Reason.CORRUPT_ARTIFACT


def as_mean(document: dict[str, Any]) -> dict[str, Any]:
    """The same verdict, its measure a mean of numbers between 0 and 10."""
    results = document["results"]
    groups = [group for c in results["contenders"] for group in c["breakdowns"].values()]
    owners = [*results["contenders"], *(seed for c in results["contenders"] for seed in c["seeds"])]
    for measures in [*(one["measures"] for one in owners), *groups]:
        for measure in measures.values():
            measure |= {"kind": "mean", "value": 7.125, "low": 6.5, "high": 7.75}
    for comparison in results["comparisons"]:
        comparison |= {"only_a": None, "only_b": None, "p_value": None}
    for sample in results["samples"]:
        for answer in sample["answers"]:
            answer |= {"correct": None, "value": 3.5}
    return document


def test_the_report_of_a_mean_shows_values_and_no_share_of_right_answers() -> None:
    page = report_page.render(as_mean(document())).replace("\\", "")
    assert "7.125 [6.5, 7.75]" in page
    assert "+0.5 [+0.1, +0.8]" in page
    assert "7.125 over 8" in page
    assert "3.5 (" in page
    assert "## Accuracy" not in page
    measures = page.partition("## Measures")[2].partition("## Loss")[0]
    assert not re.search(r"\d %(?! intervals| bootstrap)|points", measures), measures
    assert ", right:" not in page
    assert ", wrong" not in page
