"""Exercises the protocol with an unmodified OpenAI SDK: `sdk_walk.py URL` with OPENAI_API_KEY set.

It runs in a Python with the SDK version to test and imports no project code. Prints results as JSON.
"""

import base64
import json
import sys
import time

import openai

MODEL = "gpt-3.5-turbo-0613"


def upload_of(count, text="answer"):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"question {n}"},
                {"role": "assistant", "content": f"{text} {n}"},
            ]
        }
        for n in range(count)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def ended(client, job_id, wanted=("succeeded", "failed", "cancelled")):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in wanted:
            return job
        time.sleep(0.05)
    raise SystemExit(f"job {job_id} is {job.status} after two minutes")


def create(client, file_id, epochs=2, **more):
    return client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file_id,
        seed=7,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 4}},
        },
        **more,
    )


def files(client, seen):
    data = upload_of(12)
    file = client.files.create(file=("train.jsonl", data), purpose="fine-tune")
    assert client.files.content(file.id).content == data
    assert client.files.retrieve(file.id).bytes == len(data)
    extra = client.files.create(file=("gone.jsonl", data), purpose="fine-tune")
    assert [one.id for one in client.files.list(limit=1)] == [extra.id, file.id]
    assert client.files.delete(extra.id).deleted
    seen["files"] = True
    return file


def job(client, seen, file):
    validation = client.files.create(file=("valid.jsonl", upload_of(3, "reply")), purpose="fine-tune")
    made = create(client, file.id, suffix="Walk", metadata={"purpose": "walk"}, validation_file=validation.id)
    assert made.status in ("validating_files", "queued")
    done = ended(client, made.id)
    assert done.status == "succeeded", done.error
    assert done.trained_tokens > 0
    assert done.metadata == {"purpose": "walk"}
    assert done.fine_tuned_model.startswith(f"ft:{MODEL}:")
    events = list(client.fine_tuning.jobs.list_events(made.id, limit=2))
    assert any(event.type == "metrics" for event in events)
    assert events[-1].message.startswith("Created fine-tuning job")
    table = base64.b64decode(client.files.content(done.result_files[0]).content).decode()
    assert table.splitlines()[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert len(table.splitlines()) == 1 + 6
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(made.id))
    assert checkpoints[0].step_number == 6
    assert done.id in [one.id for one in client.fine_tuning.jobs.list(limit=1)]
    seen["job"] = done.status
    seen["checkpoints"] = len(checkpoints)
    return done


def control(client, seen):
    slow = client.files.create(file=("slow.jsonl", upload_of(12, "slowly")), purpose="fine-tune")
    made = create(client, slow.id, epochs=8)
    ended(client, made.id, ("running",))
    assert client.fine_tuning.jobs.pause(made.id).status == "paused"
    assert client.fine_tuning.jobs.resume(made.id).status in ("queued", "running")
    ended(client, made.id, ("running",))
    assert client.fine_tuning.jobs.cancel(made.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(made.id).status == "cancelled"
    seen["control"] = ["paused", "resumed", "cancelled"]


def answers(client, seen, model):
    messages = [{"role": "user", "content": "question 1"}]
    raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, max_tokens=8)
    assert raw.headers["x-request-id"].startswith("req_")
    assert int(raw.headers["x-ratelimit-remaining-requests"]) > 0
    completion = raw.parse()
    usage = completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    lines = [
        {
            "custom_id": f"row-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model if n else "gpt-unknown", "messages": messages, "max_tokens": 8},
        }
        for n in range(4)
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    requests = client.files.create(file=("batch.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=requests.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 3, 1)
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [one["custom_id"] for one in results] == ["row-1", "row-2", "row-3"]
    refused = json.loads(client.files.content(batch.error_file_id).text)
    assert refused["response"]["body"]["error"]["code"] == "model_not_found"
    assert batch.id in [one.id for one in client.batches.list()]
    seen["batch"] = batch.status


def errors(client, seen, file):
    statuses = []
    for call in (
        lambda: client.files.retrieve("file-unknown"),
        lambda: client.fine_tuning.jobs.create(model="gpt-unknown", training_file=file.id),
        lambda: client.fine_tuning.jobs.create(model=MODEL, training_file="file-unknown"),
        lambda: client.chat.completions.create(
            model="gpt-unknown", messages=[{"role": "user", "content": "?"}]
        ),
        lambda: client.with_options(api_key="sk-wrong").models.list(),
    ):
        try:
            call()
        except openai.APIStatusError as error:
            statuses.append(error.status_code)
    assert statuses == [404, 400, 400, 404, 401], statuses
    bad = client.files.create(file=("bad.jsonl", upload_of(12) + b'{"messages": []}\n'), purpose="fine-tune")
    failed = ended(client, create(client, bad.id).id)
    assert failed.status == "failed"
    assert failed.error.code == "invalid_training_file"
    assert "train.jsonl:13" in failed.error.message
    seen["errors"] = statuses


def main():
    client = openai.OpenAI(base_url=sys.argv[1], max_retries=0, timeout=60)
    seen = {"openai": openai.__version__}
    file = files(client, seen)
    done = job(client, seen, file)
    assert done.fine_tuned_model in [model.id for model in client.models.list()]
    control(client, seen)
    answers(client, seen, done.fine_tuned_model)
    errors(client, seen, file)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
