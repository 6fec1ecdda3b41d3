"""The choice of Helm (HELM_BIN, PATH, SDK) and its errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from render_scenarios import rendered

from launcher.manifests import helm
from launcher.manifests.chart_values import chart_directory
from launcher.outcome import Failure, Reason

#: A fake helm program: records its arguments and prints a given text.
FAKE = """#!{python}
import json, sys
json.dump({{"arguments": sys.argv[1:], "values": json.load(sys.stdin)}}, open({note!r}, "w"))
sys.stdout.write(open({answer!r}).read())
sys.stderr.write({error!r})
sys.exit({code})
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.undo()
    return make_fake(tmp_path)


def make_fake(directory: Path, *, error: str = "", code: int = 0) -> Path:
    program = directory / "helm"
    (directory / "answer").touch()
    program.write_text(
        FAKE.format(
            python=sys.executable,
            note=str(directory / "note.json"),
            answer=str(directory / "answer"),
            error=error,
            code=code,
        )
    )
    program.chmod(0o755)
    return program


def test_helm_bin_comes_first(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    plain = rendered("demo")
    answer = helm.template(
        chart_directory(), release=plain.run_id, namespace=plain.namespace, values=plain.values
    )
    (tmp_path / "answer").write_text(answer)
    monkeypatch.setenv("HELM_BIN", str(fake))
    helm.template(chart_directory(), release="sql-1", namespace="tuning", values={"run": {"id": "2e-5"}})
    note = json.loads((tmp_path / "note.json").read_text())
    assert note["arguments"][:3] == ["template", "sql-1", str(chart_directory())]
    assert note["arguments"][3:5] == ["--namespace", "tuning"]
    assert note["values"] == {"run": {"id": "2e-5"}}


def test_helm_on_path_comes_second_and_the_sdk_last(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELM_BIN", raising=False)
    monkeypatch.setenv("PATH", str(fake.parent))
    assert helm.find_binary() == str(fake)
    monkeypatch.setenv("PATH", "/nowhere")
    assert helm.find_binary() is None


def test_invalid_helm_bin_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HELM_BIN", "/no/such/helm")
    with pytest.raises(Failure, match="HELM_BIN is not a program") as caught:
        rendered("demo")
    assert caught.value.reason is Reason.USAGE
    assert caught.value.where == "/no/such/helm"


def test_helm_errors_are_passed_on(tmp_path: Path) -> None:
    program = make_fake(tmp_path, error="Error: values don't meet\n- at '/run': no\n", code=1)
    with pytest.raises(Failure, match="cannot render the chart") as caught:
        helm.by_binary(str(program), chart_directory(), release="r", namespace="n", values={})
    assert caught.value.problems == ("values don't meet", "- at '/run': no")


def test_helm_program_that_cannot_run_is_unsupported(tmp_path: Path) -> None:
    program = tmp_path / "helm"
    program.write_bytes(b"\x00 no program")
    program.chmod(0o755)
    with pytest.raises(Failure, match="helm cannot be run") as caught:
        helm.by_binary(str(program), chart_directory(), release="r", namespace="n", values={})
    assert caught.value.reason is Reason.UNSUPPORTED


def test_missing_helm_names_both_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "helm_python", None)
    with pytest.raises(Failure, match="neither a helm program nor") as caught:
        helm.by_sdk(chart_directory(), release="r", namespace="n", values={})
    assert "pip install helm-python-sdk" in caught.value.next_step


def test_rendering_leaves_the_chart_unchanged() -> None:
    first = rendered("one-a40").to_yaml()
    rendered("hosted-only")
    with pytest.raises(Failure):
        helm.template(chart_directory(), release="r", namespace="n", values={"stages": []})
    assert rendered("one-a40").to_yaml() == first
