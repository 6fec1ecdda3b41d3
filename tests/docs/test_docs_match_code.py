"""The documentation matches the code: verbs, command lines, exit codes, schemas, links and the demo."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from launcher.cli.main import VERBS, cli
from launcher.outcome import DISPOSITIONS, RETRY_BUDGET
from launcher.runs.verdict import Verdict
from launcher.spec import catalog, providers
from launcher.spec.loading import load, validate
from launcher.spec.tasks import built_in, built_in_names

ROOT = Path(__file__).parent.parent.parent
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_the_verdict_schema_is_generated_from_the_models() -> None:
    written = json.loads((ROOT / "docs" / "verdict.schema.json").read_text())
    assert written == json.loads(json.dumps(Verdict.model_json_schema())), (
        "write it again: python -m tests.docs.write_verdict_schema"
    )


def test_the_table_of_exit_codes_matches_the_reasons() -> None:
    text = (ROOT / "docs" / "runs.md").read_text()
    for reason, disposition in DISPOSITIONS.items():
        budget = RETRY_BUDGET[disposition.retry]
        tried = {0: "no", 1: "once"}.get(budget, f"{budget} times")
        assert f"| {disposition.exit_code} | `{reason.value}` | {tried} | {disposition.meaning} |" in text


def test_the_example_experiment_is_valid() -> None:
    import yaml

    from launcher.spec.documents import Loader

    text = (ROOT / "docs" / "experiments.md").read_text()
    document = yaml.load(re.findall(r"```yaml\n(format: 1\nname.*?)```", text, re.S)[0], Loader=Loader)
    assert validate(document, where="docs").name == "support"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_verb_in_the_docs_exists(path: Path) -> None:
    known = {verb for verbs in VERBS.values() for verb in verbs}
    for verb in re.findall(r"^(?:\$ )?launcher ([a-z]+)", path.read_text(), re.M):
        assert verb in known, f"{path.name} names launcher {verb}"


def shown_commands(path: Path) -> list[list[str]]:
    """The words after `launcher` of every command line on a page, without the remarks beside it."""
    lines = re.findall(r"^ *(?:\$ )?launcher ([a-z]+ .*)", path.read_text(encoding="utf-8"), re.M)
    # Remarks follow two blanks or a '#'; brackets mark optional options.
    bare = [re.sub(r"\[(-[^\]]*)\]", r"\1", re.sub(r"\s{2,}(?=[^\s-]).*", "", line)) for line in lines]
    return [shlex.split(line, comments=True) for line in bare]


@pytest.mark.parametrize("verb", [verb for verbs in VERBS.values() for verb in verbs])
def test_every_verb_is_in_the_docs(verb: str) -> None:
    assert any(f"launcher {verb}" in path.read_text(encoding="utf-8") for path in DOCS)


@pytest.mark.parametrize("task", built_in_names())
def test_every_measure_is_in_the_page_about_scoring(task: str) -> None:
    facts, text = built_in(task), (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
    names = facts.scorers.built_in if facts.scorers is not None else facts.measures
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", ["data.md", "experiments.md"])
def test_example_experiments_list_all_scorers(page: str) -> None:
    scorers = built_in("chat").scorers
    assert scorers is not None
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert re.search(rf"^scorers: .*# .*{', '.join(scorers.built_in)}", text, re.M)


def test_every_provider_is_in_the_page_about_hosted_models() -> None:
    text = (ROOT / "docs" / "hosted.md").read_text(encoding="utf-8")
    known = text.partition("Known today:")[2].partition(".")[0]
    assert set(re.findall(r"`([\w-]+)`", known)) == set(providers.providers())


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_command_line_in_the_docs_is_parsed(path: Path) -> None:
    for verb, *words in shown_commands(path):
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None, f"{path.name} names launcher {verb}"
        try:
            command.make_context(verb, list(words))
        except click.ClickException as error:
            pytest.fail(f"{path.name}: launcher {shlex.join([verb, *words])}: {error.format_message()}")


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_relative_link_exists(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_verdict_in_the_readme_matches_the_demo_profile() -> None:
    text, demo = (ROOT / "README.md").read_text(), load("sql")
    assert f"{demo.data.test_rows} questions" in text
    assert f"on {demo.data.train_rows} others" in text
    verdict = re.findall(r"```\n(.*?)```", text, re.S)[1]
    shown = re.findall(r"^  ([a-z]+) +[\d.]+ %", verdict, re.M)
    assert shown == [contender.name for contender in demo.contenders]
    assert "was a rehearsal: no hosted service was asked." in verdict
    prices = [p for p in catalog.prices().hosted_per_million_tokens_usd if p.model == "gpt-3.5-turbo-0613"]
    assert any(str(price.date) in verdict for price in prices)


def test_every_documented_profile_exists() -> None:
    for profile in ("demo", "paper", "smoke"):
        for name in ("sql", "viggo"):
            assert load(name, profile=profile).name == name
