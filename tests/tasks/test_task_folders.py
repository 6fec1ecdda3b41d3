"""The folders of jobs/tasks: each is complete, fits its facts, and is known nowhere else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from jobs.stage import Stopped
from jobs.tasks import registry
from jobs.tasks.stage_inputs import code_errors
from launcher.outcome import Failure, Reason
from launcher.spec.tasks import built_in, built_in_names, read_facts, tasks_directory

ROOT = Path(__file__).parent.parent.parent
LETTERS = Path(__file__).parent / "letters"
TASKS = built_in_names()


def test_built_in_tasks_are_the_folders_with_a_task_yaml() -> None:
    assert set(TASKS) >= {"sql", "viggo", "chat"}
    assert {path.name for path in tasks_directory().iterdir() if (path / "task.yaml").exists()} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_folder_is_complete_and_fits_its_facts(name: str) -> None:
    folder = tasks_directory() / name
    files = {path.name for path in folder.iterdir()}
    assert files >= {"task.yaml", "prompt.py", "source.py", "scorer.py", "README.md"}
    task = registry.task(name)
    assert list(task.sources) == list(built_in(name).sources)
    for source in task.sources.values():
        facts = built_in(name).sources[source.name]
        assert (source.generate is not None) == facts.generated
        assert set(source.files.values()) <= {file.rstrip("?") for file in facts.files}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_imports_no_other_task(name: str) -> None:
    others = {f"jobs.tasks.{other}" for other in TASKS if other != name}
    for path in (tasks_directory() / name).rglob("*.py"):
        for imported in _imports(path):
            assert not any(f"{imported}.".startswith(f"{other}.") for other in others), (path, imported)


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, node.module])
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def test_no_code_outside_a_tasks_folder_imports_or_names_the_task() -> None:
    imported = re.compile(rf"jobs\.tasks\.({'|'.join(TASKS)})\b|jobs\.tasks import ({'|'.join(TASKS)})\b")
    named = re.compile(
        rf"task\w*[\"']?(\.name)?( ==| !=| in| not in|=|:) ?[(\[{{]*[\"']({'|'.join(TASKS)})[\"']"
    )
    for package in ("launcher", "jobs"):
        for path in (ROOT / package).rglob("*.py"):
            folder = path.relative_to(ROOT).parts[2:3] if path.is_relative_to(tasks_directory()) else ()
            if folder and folder[0] in TASKS:
                continue
            text = path.read_text(encoding="utf-8")
            assert not imported.search(text), path
            assert not named.search(text), path


def test_viggo_occurs_in_no_other_folder_but_in_its_experiment_and_in_examples() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("launcher", "jobs")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".yaml", ".md")
        and not path.is_relative_to(tasks_directory() / "viggo")
        and any("viggo" in line.lower() and not _is_example(line) for line in _lines(path))
    }
    assert found == {"launcher/spec/catalog/experiments/viggo.yaml"}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _is_example(line: str) -> bool:
    """A line of help that shows a command."""
    return line.strip().startswith("launcher ")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "Letters"}, "name: must be at most 40 characters"),
        ({"answer": "sing"}, "answer: Input should be"),
        ({"sources": {}}, "sources: "),
        ({"sources": {"a": {"files": ["../x"]}}}, "'../x' must be relative"),
        ({"sources": {"a": {"files": ["task/x"]}}}, "not below task/"),
        ({"measures": {"a": {"kind": "mean"}}}, "measures: one must be primary, 0 are"),
        ({"measures": {"a": {"kind": "median", "primary": True}}}, "measures.a.kind: "),
        ({"settings": {"shots": {"type": "int", "default": "five"}}}, "default: must be of type int"),
        ({"settings": {"shots": {"type": "int", "default": True}}}, "default: must be of type int"),
        ({"colour": "red"}, "colour: no such key"),
        ({"format": 2}, "format 2 is newer"),
    ],
    ids=str,
)
def test_bad_facts_are_refused_with_their_path(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    document = yaml.safe_load((LETTERS / "task.yaml").read_text())
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({**document, **change}))
    with pytest.raises(Failure) as caught:
        read_facts(tmp_path)
    assert caught.value.reason is Reason.BAD_EXPERIMENT
    assert problem in caught.value.text()


@pytest.mark.parametrize("error", [ZeroDivisionError("1 / 0"), SystemExit(3)], ids=repr)
def test_an_error_in_a_users_code_is_bad_data_and_in_a_built_in_task_a_bug(error: BaseException) -> None:
    with pytest.raises(Failure, match="the task's code failed") as caught, code_errors(_letters()):
        raise error
    assert caught.value.reason is Reason.BAD_DATA
    with pytest.raises(type(error)), code_errors(registry.task("chat")):
        raise error


@pytest.mark.parametrize("error", [Stopped(), MemoryError(), OSError(28, "full")], ids=repr)
def test_a_stop_and_errors_of_the_machine_pass_through_a_users_code(error: Exception) -> None:
    with pytest.raises(type(error)), code_errors(_letters()):
        raise error


def _letters() -> registry.Task:
    return registry.task_of_folder(LETTERS)


def test_a_scorer_that_does_not_fit_its_facts_is_one_message(tmp_path: Path) -> None:
    for path in LETTERS.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    facts = yaml.safe_load((LETTERS / "task.yaml").read_text())
    facts["measures"] = {
        "in_place": {"kind": "share", "primary": True},
        "letters": {"kind": "share"},
        "words": {"kind": "mean"},
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(facts))
    from jobs.score.scoring import score_rows
    from jobs.tasks.contract import ScoreContext

    task = registry.task_of_folder(tmp_path)
    generate = task.sources["generated"].generate
    assert generate is not None
    parts = generate({"train": 1, "validation": 0, "test": 2}, 0, tmp_path, lambda _done, _total: None)
    half = [row.gold[:1] for row in parts.test]
    with pytest.raises(Failure) as caught:
        score_rows(task, ScoreContext(directory=lambda: tmp_path), parts.test, half)
    assert caught.value.reason is Reason.BAD_DATA
    assert sorted(caught.value.problems) == [
        "'in_place' is a share, and has values besides 0 and 1: declare kind: mean",
        "'letters' is a share, which belongs into scores",
        "'whole' is not among the measures of task.yaml",
        "'words' is among the measures of task.yaml, and no row has it",
    ]
