"""The command line: one message per error, its exit code, data on stdout and messages on stderr."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from tiny import make_plan

import launcher
from launcher.cli import main as main_module
from launcher.cli.main import VERBS, main
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.runs import finalize
from launcher.store import DirectoryStore
from launcher.store.records import Note, TryEnd
from launcher.store.runs import Attempt, attempts

ALL_VERBS = [verb for verbs in VERBS.values() for verb in verbs]


@dataclass
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The launcher in this process, through `main`, with a home of its own."""
    for name in list(os.environ):
        if name.startswith(("TUNEYARD", "XDG_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Said:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["launcher", *arguments])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main()
        texts = []
        for stream in (out, err):
            stream.flush()
            stream.seek(0)
            texts.append(stream.read())
        return Said(code, *texts)

    return call


def open_run(store: DirectoryStore, **changes: object) -> str:
    plan = make_plan(**changes)
    store.put_json(f"runs/{plan.run_id}/plan.json", plan.model_dump(mode="json"))
    Attempt(store, plan.run_id, 1).put("request.json", {"format": 1, "opened_at": 1.0})
    return plan.run_id


def assert_refused(said: Said, reason: Reason, words: str) -> None:
    """One message on stderr with a next step, nothing on stdout, the reason's exit code."""
    assert said.code == DISPOSITIONS[reason].exit_code, said
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("error: ") == 1
    assert words in said.err
    assert "\nnext: " in said.err
    assert "Traceback" not in said.err
    assert not re.search(r"\b(RUN|STAGE|EXPERIMENT|COMMAND)\b", said.err), "a placeholder was not filled in"


BAD_FILES = {
    "a: [": "not YAML",
    "- 1": "must be a mapping",
    "name: tiny": "problems",
    "format: 9": "newer",
    "name: tiny\ntask: sql\ncontenders: [{name: a, kind: prompted, model: random-llama, modle: x}]": (
        "contenders[0].modle: no such key"
    ),
}


@pytest.mark.parametrize("verb", ["plan", "submit"])
@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_experiment_file_is_exit_10(run: Run, tmp_path: Path, verb: str, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    target = ["--target", "local"] if verb == "submit" else []
    assert_refused(run(verb, "mine.yaml", *target), Reason.BAD_EXPERIMENT, BAD_FILES[text])


REFUSED = [
    (("plan", "nothing"), Reason.MISSING_INPUT, "no experiment 'nothing'"),
    (("plan", "nothing.yaml"), Reason.MISSING_INPUT, "nothing.yaml: cannot read"),
    (("plan", "sql", "-f", "over.yaml"), Reason.MISSING_INPUT, "over.yaml"),
    (
        ("plan", "sql", "--profile", "huge"),
        Reason.BAD_EXPERIMENT,
        "no profile 'huge'; it has: demo, paper, smoke",
    ),
    (("plan", "sql", "--set", "data.trian_rows=3"), Reason.BAD_EXPERIMENT, "data.trian_rows: no such key"),
    (("plan", "sql", "--set", "contenders[x].model=y"), Reason.BAD_EXPERIMENT, "there are untuned, lora"),
    (("plan", "sql", "--set", "contenders[lora].model=nope"), Reason.NO_SUCH_MODEL, "model 'nope'"),
    (("plan", "sql", "--set", "contenders[lora].model=./nope"), Reason.NO_SUCH_MODEL, "no such directory"),
    (("plan", "sql", "--set", "contenders[lora].model=o/m"), Reason.NETWORK, "HF_HUB_OFFLINE"),
    (("plan", "sql", "--data", "nowhere"), Reason.MISSING_INPUT, "no such directory"),
    (("plan", "viggo"), Reason.MISSING_INPUT, "reads a directory"),
    (("plan", "viggo", "--data", "."), Reason.MISSING_INPUT, "viggo-train.csv"),
    (("plan", "sql", "-o", "name", "--lock", "no/dir/lock.json"), Reason.USAGE, "cannot write"),
    (("submit", "sql"), Reason.UNSUPPORTED, "--target local"),
    (("submit", "sql", "--target", "local", "--store", "/dev/null/x"), Reason.STORE_FAILED, "/dev/null/x"),
    (("list", "--store", "gs://bucket"), Reason.UNSUPPORTED, "gs"),
    (("list", "--site", "none.yaml"), Reason.MISSING_INPUT, "site file"),
    *(((verb, "sql-00000000"), Reason.NOT_FOUND, "no run") for verb in ("status", "logs", "why", "report")),
    *(((verb, "sql-00000000"), Reason.NOT_FOUND, "no run") for verb in ("cancel", "retry")),
]


@pytest.mark.parametrize(
    ("arguments", "reason", "words"),
    REFUSED,
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_every_error_is_one_message_with_a_next_step(
    run: Run, arguments: tuple[str, ...], reason: Reason, words: str
) -> None:
    assert_refused(run(*arguments), reason, words)


@pytest.mark.parametrize("verb", ["status", "why", "report", "logs", "cancel", "retry"])
def test_an_ambiguous_run_prefix_lists_the_runs(run: Run, store: DirectoryStore, verb: str) -> None:
    runs = sorted([open_run(store), open_run(store, seeds=[2])])
    said = run(verb, "tiny-", "--store", str(store.root))
    assert_refused(said, Reason.NOT_FOUND, f"could be {', '.join(runs)}")


def test_an_unambiguous_run_prefix_is_accepted(run: Run, store: DirectoryStore) -> None:
    run_id = open_run(store)
    said = run("status", run_id[:7], "--store", str(store.root), "-o", "json")
    assert said.code == 0
    assert json.loads(said.out)["run"] == run_id


@pytest.mark.parametrize(
    "arguments",
    [
        ("logs", "{run}", "--stage", "nope"),
        ("logs", "{run}"),
        ("status", "{run}", "--attempt", "7"),
        ("report", "{run}"),
    ],
)
def test_a_missing_stage_log_attempt_or_verdict_is_not_found(
    run: Run, store: DirectoryStore, arguments: tuple[str, ...]
) -> None:
    run_id = open_run(store)
    said = run(*(word.format(run=run_id) for word in arguments), "--store", str(store.root))
    assert_refused(said, Reason.NOT_FOUND, "")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("plan",),
        ("plan", "sql", "--nope"),
        ("plan", "sql", "-o", "xml"),
        ("plan", "sql", "--relock"),
    ],
)
def test_a_usage_error_is_exit_2(run: Run, arguments: tuple[str, ...]) -> None:
    said = run(*arguments)
    assert said.code == 2
    assert "Traceback" not in said.err


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_the_help_of_every_verb_shows_every_option_with_its_default(run: Run, verb: str) -> None:
    said = run(verb, "--help")
    assert said.code == 0
    assert said.err == ""
    assert said.out.startswith(f"Usage: launcher {verb} ")
    options = said.out.partition("\nOptions:\n")[2]
    command = main_module.cli.get_command(click.Context(main_module.cli), verb)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not (
            parameter.is_flag or parameter.multiple or parameter.hidden
        ):
            assert parameter.help, parameter.name
            shown = re.search(rf"{parameter.opts[-1]}\b.*?(?=\n  -|\Z)", options, re.DOTALL)
            assert shown is not None, parameter.name
            optional = not parameter.required and parameter.name not in {
                "explain",
                "data_directory",
                "lock_path",
            }
            assert "[default:" in " ".join(shown[0].split()) or not optional, parameter.name
            assert "required" in shown[0] or not parameter.required, parameter.name


def test_help_lists_every_verb(run: Run) -> None:
    said = run("--help")
    for verb in ALL_VERBS:
        assert re.search(rf"^  {verb}\s+\S", said.out, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_exists_for_every_shell(tmp_path: Path, shell: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(launcher.__file__).parents[1]),
        "_LAUNCHER_COMPLETE": f"{shell}_source",
    }
    done = subprocess.run(
        [sys.executable, "-m", "launcher"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    if shell == "bash" and "bash" in done.stderr:
        pytest.skip("this bash is too old for completion")
    assert done.returncode == 0, done.stderr
    assert f"_LAUNCHER_COMPLETE={shell}_complete" in done.stdout


def test_completion_lists_the_verbs(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(launcher.__file__).parents[1]),
        "_LAUNCHER_COMPLETE": "bash_complete",
        "COMP_WORDS": "launcher s",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "launcher"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert {"plain,submit", "plain,status", "plain,score"} <= set(done.stdout.split())


def test_reading_creates_no_store(run: Run, tmp_path: Path) -> None:
    said = run("list", "--store", str(tmp_path / "typo"))
    assert (said.code, said.out) == (0, "")
    assert "no runs in" in said.err
    run("plan", "sql", "--profile", "smoke", "-o", "name", "--store", str(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("verb", [("list",), ("status", "{run}"), ("doctor",)])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_stdout_is_data_only(run: Run, store: DirectoryStore, verb: tuple[str, ...], form: str) -> None:
    import yaml

    run_id = open_run(store)
    said = run(*(word.format(run=run_id) for word in verb), "--store", str(store.root), "-o", form)
    value = json.loads(said.out) if form == "json" else yaml.safe_load(said.out)
    assert isinstance(value, dict | list)
    assert "\x1b" not in said.out + said.err


def test_plan_output_as_json_is_the_plan(run: Run) -> None:
    said = run("plan", "sql", "--profile", "smoke", "-o", "json")
    assert said.code == 0, said.err
    document = json.loads(said.out)
    name = run("plan", "sql", "--profile", "smoke", "-o", "name")
    assert document["plan"]["run_id"] == name.out.strip()
    assert len(document["estimates"]) == len(document["plan"]["stages"])


def test_a_lock_file_is_written_once_and_then_read(run: Run, tmp_path: Path) -> None:
    first = run("plan", "sql", "--profile", "smoke", "-o", "name", "--lock", "lock.json")
    assert "lock: written to lock.json" in first.err
    before = (tmp_path / "lock.json").read_bytes()
    second = run("plan", "sql", "--profile", "smoke", "-o", "name", "--lock", "lock.json")
    assert (second.out, second.err) == (first.out, "")
    assert (tmp_path / "lock.json").read_bytes() == before


def test_an_unexpected_error_is_one_line_and_explains_how_to_report_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("an unexpected error")

    monkeypatch.setattr(main_module.cli, "main", broken)
    said = run("list")
    assert_refused(said, Reason.INTERNAL, "RuntimeError: an unexpected error")
    monkeypatch.setenv("TUNEYARD_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        run("list")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_exit_130(run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def interrupted(**_: object) -> None:
        raise error

    monkeypatch.setattr(main_module.cli, "main", interrupted)
    said = run("list")
    assert (said.code, said.err) == (130, "interrupted\n")


@pytest.mark.parametrize("reason", [r for r in Reason if r is not Reason.SUCCEEDED])
def test_every_reason_has_its_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch, reason: Reason) -> None:
    def fail(**_: object) -> None:
        raise Failure(reason, "it broke", where="here", problems=("one", "two"))

    monkeypatch.setattr(main_module.cli, "main", fail)
    said = run("list")
    assert said.code == DISPOSITIONS[reason].exit_code
    assert said.err.startswith("error: here: it broke\n  one\n  two\nnext: ")


def closed_run(store: DirectoryStore, reason: Reason) -> str:
    """A run whose first stage failed permanently."""
    run_id = open_run(store)
    attempt = Attempt(store, run_id, 1)
    failure = Failure(reason, "prepare broke", where="prepare").about(run_id, "prepare").to_json()
    attempt.begin_try("prepare", 1, 10.0)
    attempt.end_try(
        "prepare", 1, TryEnd(ended_at=12.0, reason=reason, final=True, failure=Failure.from_json(failure))
    )
    attempt.log_path("prepare", 1).parent.mkdir(parents=True)
    attempt.log_path("prepare", 1).write_text("working\n\x1b[2J\x1b[31mhostile\n")
    attempt.put(
        "outcome.json",
        {
            "format": 1,
            "reason": reason.value,
            "failure": failure,
            "stages": {"prepare": {"state": "failed", "failure": failure}, "report": {"state": "blocked"}},
            "ended_at": 12.0,
        },
    )
    return run_id


@pytest.mark.parametrize("reason", [Reason.INTERNAL, Reason.BAD_DATA, Reason.DISK_FULL, Reason.OUT_OF_MEMORY])
def test_why_prints_a_sentence_and_a_command_without_placeholders(
    run: Run, store: DirectoryStore, reason: Reason
) -> None:
    run_id = closed_run(store, reason)
    said = run("why", run_id, "--store", str(store.root))
    assert said.code == 0
    sentence, next_step = said.out.splitlines()
    assert sentence == "prepare failed: prepare broke."
    assert next_step.startswith("next: ")
    assert next_step.endswith(f"launcher retry {run_id}")
    assert not re.search(r"\b(RUN|STAGE)\b", next_step)
    assert "hostile" in said.err
    assert "\x1b" not in said.out + said.err


def test_why_names_the_budget_that_is_spent(run: Run, store: DirectoryStore) -> None:
    # The budget was spent before any stage started.
    run_id = open_run(store)
    spent = Failure(Reason.OVER_BUDGET, "$7.10 of $7.00 are spent", next_step="raise budget_usd").to_json()
    stages = {stage.name: {"state": "failed", "failure": spent} for stage in make_plan().stages}
    outcome = {"format": 1, "reason": "over-budget", "failure": spent, "stages": stages, "ended_at": 1.0}
    Attempt(store, run_id, 1).put("outcome.json", outcome)
    said = run("why", run_id, "--store", str(store.root))
    assert said.out == (
        f"prepare failed: $7.10 of $7.00 are spent.\nnext: raise budget_usd; then launcher retry {run_id}\n"
    )
    states = json.loads(run("status", run_id, "--store", str(store.root), "-o", "json").out)["stages"]
    assert {one["state"] for one in states} == {"failed"}


def test_why_names_the_failure_of_the_conductor(run: Run, store: DirectoryStore) -> None:
    run_id = open_run(store)
    broken = Failure(Reason.UNAUTHORIZED, "\x1b[2Jbob may not watch jobs", next_step="ask for a Role")
    finalize.close_failed(Attempt(store, run_id, 1), broken)
    said = run("why", run_id, "--store", str(store.root))
    assert said.out == (
        f"{run_id} ended:  [2Jbob may not watch jobs.\nnext: ask for a Role; then launcher retry {run_id}\n"
    )


def test_why_prefers_a_note_with_a_next_step(run: Run, store: DirectoryStore) -> None:
    plan = make_plan()
    store.put_json(f"runs/{plan.run_id}/plan.json", plan.model_dump(mode="json"))
    attempt = Attempt(store, plan.run_id, 1)
    attempt.put("request.json", {"format": 1, "opened_at": 1.0, "target": "cluster"})
    first, second = (stage.name for stage in plan.stages[:2])
    for name in (first, second):
        attempt.begin_try(name, 1, 10.0)
    waits, lost = (
        Note("Unschedulable: 0/1 nodes"),
        Note("node lost: it does not answer", "kubectl delete node n"),
    )
    attempt.put_conductor_heartbeat({first: waits, second: lost})
    said = run("why", plan.run_id, "--store", str(store.root))
    assert said.out == (f"{second} is stuck: node lost: it does not answer\nnext: kubectl delete node n\n")
    attempt.put_conductor_heartbeat({first: waits})
    assert run("why", plan.run_id, "--store", str(store.root)).out.startswith(
        f"{first} is stuck: {waits.what}"
    )


@pytest.mark.parametrize("form", ["json", "table"])
def test_status_shows_the_failure(run: Run, store: DirectoryStore, form: str) -> None:
    run_id = closed_run(store, Reason.BAD_DATA)
    said = run("status", run_id, "--store", str(store.root), "-o", form)
    assert said.code == 0
    assert "failed" in said.out
    assert "blocked" in said.out


def test_logs_are_printed_unchanged(run: Run, store: DirectoryStore) -> None:
    run_id = closed_run(store, Reason.BAD_DATA)
    said = run("logs", run_id, "--stage", "prepare", "--store", str(store.root))
    assert (said.code, said.out) == (0, "working\n\x1b[2J\x1b[31mhostile\n")


def test_cancel_closes_an_open_attempt_once(run: Run, store: DirectoryStore) -> None:
    run_id = open_run(store)
    first = run("cancel", run_id, "--store", str(store.root))
    assert (first.code, first.out) == (0, "")
    assert f"launcher retry {run_id}" in first.err
    second = run("cancel", run_id, "--store", str(store.root))
    assert second.code == 0
    assert "has ended already (cancelled)" in second.err
    why = run("why", run_id, "--store", str(store.root))
    assert why.out == f"{run_id} was cancelled.\nnext: launcher retry {run_id}\n"


def test_retry_of_an_open_attempt_is_an_error(run: Run, store: DirectoryStore) -> None:
    run_id = open_run(store)
    said = run("retry", run_id, "--store", str(store.root))
    assert_refused(said, Reason.USAGE, "attempt 1 is still open")


def test_a_refused_retry_opens_no_attempt(run: Run, store: DirectoryStore) -> None:
    run_id = open_run(store)
    run("cancel", run_id, "--store", str(store.root))
    for _ in range(2):
        # Pods cannot reach a directory. The answer is the same each time, and attempt 2 is not opened.
        said = run("retry", run_id, "--target", "cluster", "--store", str(store.root))
        assert_refused(said, Reason.UNSUPPORTED, "pods cannot reach a directory of this machine")
    assert attempts(store, run_id) == [1]


def test_an_impossible_plan_is_printed_and_then_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text(
        "name: big\ntask: sql\nbudget_usd: 1\ncontenders:\n"
        "  - {name: a, kind: lora, model: random-llama, hardware: {device: NVIDIA-T4}}\n"
    )
    said = run("plan", "big.yaml")
    assert said.code == DISPOSITIONS[Reason.UNSUPPORTED].exit_code
    assert "unknown device; known are NVIDIA-A40" in said.err
    assert "train-a-s1" in said.out
