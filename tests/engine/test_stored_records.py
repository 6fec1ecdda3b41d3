"""The JSON of records in the store: its keys stay, so that runs of earlier versions can be read and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.methods.checkpoint import CurvePoint, Progress
from jobs.predict.prediction import Prediction
from jobs.runtime.heartbeat import HeartbeatWriter
from jobs.stage import StageMeta
from launcher.store import DirectoryStore

PROGRESS = {
    "step": 2,
    "tokens": 90,
    "learnt_tokens": 30,
    "seconds": 1.5,
    "curve": [
        {"step": 1, "loss": 2.5, "learning_rate": 0.1, "trained_tokens": 14},
        {"step": 2, "loss": 2.0, "learning_rate": 0.2, "trained_tokens": 30, "validation_loss": 2.25},
    ],
}


def test_progress_json_is_read_and_written_byte_for_byte() -> None:
    progress = Progress.from_json(PROGRESS)
    assert progress.trained_tokens == 30
    assert progress.curve[0].validation_loss is None
    assert json.dumps(progress.to_json()) == json.dumps(PROGRESS)


def test_progress_counts_steps_tokens_and_seconds() -> None:
    first = Progress().after(CurvePoint(1, 2.5, 0.1, 14), tokens=40, seconds=0.5)
    second = first.after(CurvePoint(2, 2.0, 0.2, 30, 2.25), tokens=50, seconds=1.0)
    assert second == Progress.from_json(PROGRESS)


def test_a_heartbeat_holds_progress_speed_and_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = DirectoryStore(tmp_path)
    heartbeats = HeartbeatWriter(store, "heartbeats/train.json", "train")
    heartbeats.write(0, 4, "step", {})
    heartbeats.write(1, 4, "step", {"loss": 9.0})  # not due
    heartbeats.write(4, 4, "step", {"loss": 0.123456})
    stored = store.get_json("heartbeats/train.json")
    assert stored is not None
    assert set(stored) == {"stage", "step", "total", "unit", "elapsed_s", "eta_s", "measures", "at"}
    assert (stored["stage"], stored["step"], stored["total"], stored["unit"]) == ("train", 4, 4, "step")
    assert stored["eta_s"] == 0.0
    assert stored["measures"] == {"loss": 0.123456}
    assert capsys.readouterr().out == "step 0/4\nstep 4/4 loss=0.1235 eta=0s\n"


def test_stage_meta_merges_what_the_stage_kind_measured() -> None:
    meta = StageMeta("train", "train", "run", 1, 5.0, 2.0, 100, "cpu", {"python": "3"}, {"tokens": 7})
    assert meta.to_json() == {
        "stage": "train",
        "kind": "train",
        "run": "run",
        "attempt": 1,
        "started_at": 5.0,
        "seconds": 2.0,
        "peak_memory_bytes": 100,
        "device": "cpu",
        "versions": {"python": "3"},
        "tokens": 7,
    }


def test_a_prediction_keeps_the_order_of_its_keys() -> None:
    text = '{"answer": "a", "finish": "stop", "prompt_tokens": 1, "answer_tokens": 2, "latency_s": 0.5}'
    assert json.dumps(Prediction(**json.loads(text)).to_json()) == text
