"""The rehearsal server with the real engine and a two-layer model: training, answers, recovery from SIGKILL."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import MODEL, Server, upload_of

from jobs.fetch.random_model import create
from launcher.spec.stages import RandomModel

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("rehearsal")]
RECIPE = {
    "threads": 1,
    "dtype": "float32",
    "learning_rate": 0.02,
    "answer_rows": 4,
    "micro_batch_tokens": 512,
}
QUESTIONS = [f"question {number}" for number in range(4)]
ANSWER_TOKENS = 12
_TIMEOUT_S = 240


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    create(RandomModel(), directory)
    return directory


@pytest.fixture
def server(make_server: Callable[..., Server], model: Path) -> Server:
    return make_server(model=model, real=True, options=("--recipe", json.dumps(RECIPE)))


def start_job(server: Server, epochs: int) -> str:
    client = server.client()
    file = client.files.create(file=("train.jsonl", upload_of(12, "forty-two")), purpose="fine-tune")
    hyperparameters = {"n_epochs": epochs, "batch_size": 4}
    made = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    )
    return made.id


def ended(server: Server, job_id: str, status: str = "succeeded") -> Any:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        job = server.client().fine_tuning.jobs.retrieve(job_id)
        if job.status == status:
            return job
        assert job.status in ("validating_files", "queued", "running"), job.error
        time.sleep(0.1)
    pytest.fail(f"the job is {job.status}")


def batch_answers(server: Server, model_name: str) -> list[str]:
    """Answers to QUESTIONS in one batch."""
    client = server.client()
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": model_name,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": ANSWER_TOKENS,
            },
        }
        for number, question in enumerate(QUESTIONS)
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    file = client.files.create(file=("b.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status != "completed":
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
        assert batch.status in ("validating", "in_progress", "finalizing", "completed")
    assert batch.output_file_id
    rows = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    return [row["response"]["body"]["choices"][0]["message"]["content"] for row in rows]


def direct_answers(model: Path, adapter: Path) -> list[str]:
    """Answers of the adapter to QUESTIONS in one batch, without a server."""
    from jobs.models import loading
    from jobs.models.generation import answer_batch, end_tokens, load
    from jobs.tasks.prompts import prompt_text
    from jobs.tasks.rows import Row

    loading.prepare(1, "cpu")
    tokenizer = loading.load_tokenizer(model)
    loaded = load(model, adapter, dtype="float32", device="cpu")
    prompts = []
    for question in QUESTIONS:
        messages = ({"role": "user", "content": question}, {"role": "assistant", "content": ""})
        text = prompt_text(Row("", messages, {"task": "chat"}), tokenizer, "chat")
        prompts.append(tokenizer.encode(text, add_special_tokens=False))
    found = answer_batch(loaded, prompts, ends=end_tokens(loaded, tokenizer), max_new_tokens=ANSWER_TOKENS)
    return [tokenizer.decode(one.tokens, skip_special_tokens=True) for one in found]


def test_tuned_model_answers_with_its_adapter(server: Server, model: Path) -> None:
    job = ended(server, start_job(server, epochs=4))
    tuned, base = batch_answers(server, job.fine_tuned_model), batch_answers(server, MODEL)
    assert tuned != base
    assert tuned == batch_answers(server, job.fine_tuned_model)
    adapter = server.root / "state" / "jobs" / job.id / "out"
    assert tuned == direct_answers(model, adapter)
    single = server.client().chat.completions.create(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": QUESTIONS[0]}],
        max_tokens=ANSWER_TOKENS,
    )
    # A single prompt is not padded; with this model the answer is the same.
    assert single.choices[0].message.content == tuned[0]
    losses = metrics(server, job)
    assert losses[-1] < losses[0]


def metrics(server: Server, job: Any) -> list[float]:
    text = base64.b64decode(server.client().files.content(job.result_files[0]).content).decode()
    return [float(line.split(",")[1]) for line in text.splitlines()[1:]]


def test_job_survives_sigkill_of_the_server(server: Server) -> None:
    job_id = start_job(server, epochs=5)
    checkpoints = server.root / "state" / "jobs" / job_id / "checkpoints"
    deadline = time.monotonic() + _TIMEOUT_S
    while not list(checkpoints.glob("step-*/_SUCCESS.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.kill()
    server.start()
    job = ended(server, job_id)
    losses = metrics(server, job)
    assert len(losses) == 15
    assert "continuing after step" in (server.root / "state" / "jobs" / job_id / "worker.log").read_text()
    uninterrupted = ended(server, start_job(server, epochs=5))
    assert metrics(server, uninterrupted) == losses
    adapters = [
        (server.root / "state" / "jobs" / one.id / "out" / "adapter_model.safetensors").read_bytes()
        for one in (job, uninterrupted)
    ]
    assert adapters[0] == adapters[1]


def test_examples_too_long_for_the_stand_in_fail_the_job(server: Server) -> None:
    client = server.client()
    long = json.dumps(
        {"messages": [{"role": "user", "content": "x" * 600}, {"role": "assistant", "content": "y"}]}
    )
    file = client.files.create(file=("t.jsonl", upload_of(12) + long.encode() + b"\n"), purpose="fine-tune")
    made = client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
    job = ended(server, made.id, "failed")
    assert job.error.code == "bad_data"
    assert "example 13" in job.error.message
