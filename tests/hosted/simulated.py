"""Fake workers for tests of the protocol: no torch, no training, milliseconds.

`simulated.py train JOB` and `simulated.py answer SETTINGS` write the same messages as the real workers.
"""

import json
import os
import signal
import sys
import time


def train(job: str) -> int:
    with open(job, encoding="utf-8") as stream:
        described = json.load(stream)
    if os.path.exists(os.path.join(described["model"], "crash-training")):
        os._exit(9)
    total = described["settings"]["training"]["steps"]
    with open(os.path.join(described["data"], "train.jsonl"), encoding="utf-8") as stream:
        slow = "slowly" in stream.read()
    stopped = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    for step in range(total + 1):
        measures = {"loss": 2.0 / (step + 1)} if step else {}
        print(
            json.dumps({"kind": "heartbeat", "step": step, "total": total, "measures": measures}), flush=True
        )
        if stopped:
            return 143
        time.sleep(0.2 if slow else 0)
    return 0


def answer(settings: str) -> int:
    crash_once = os.path.join(json.loads(settings)["model"], "crash-once")
    for line in sys.stdin:
        if os.path.exists(crash_once):
            os.unlink(crash_once)
            os._exit(9)
        request = json.loads(line)
        answers = [
            {"text": f"answer to {one[-1]['content'][:40]}", "finish": "stop"}
            for one in request["conversations"]
        ]
        print(json.dumps({"id": request["id"], "answers": answers}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(train(sys.argv[2]) if sys.argv[1] == "train" else answer(sys.argv[2]))
