"""Speed of training and generation on this machine, by layout and precision. Source of figures in docs/training.md.

    python benchmarks/engine.py MODEL_DIRECTORY ROWS.jsonl [--threads 2] [--rows-of-step 16]

Prints seconds and CPU seconds of one step (forward and backward of LoRA r 16 on q/k/v/o, no update) per
training layout and precision, and tokens per second of greedy decoding per precision. On a shared
machine, compare CPU seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jobs.methods.microbatches import IGNORE_INDEX, microbatches
from jobs.models import adapters, loading
from jobs.models.examples import prompt_tokens, tokenize
from jobs.models.generation import answer_batch, end_tokens
from jobs.tasks.rows import read_rows
from launcher.spec.contenders import Lora

LAYOUTS = [("packed", True, 2048), ("packed", True, 512), ("padded", False, 4096), ("padded", False, 1024)]
DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows-of-step", type=int, default=16)
    parser.add_argument("--answers", type=int, default=25)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    options = parser.parse_args()
    loading.prepare(options.threads, "cpu")
    tokenizer = loading.load_tokenizer(options.model)
    rows = read_rows(options.rows)
    for dtype in DTYPES:
        model = loading.load_model(options.model, dtype=dtype)
        prompts = [prompt_tokens(row, tokenizer, "chat") for row in rows[: options.answers]]
        _report_answers(model.eval(), tokenizer, prompts, dtype, options.max_new_tokens)
        part = tokenize(
            rows[: options.rows_of_step], tokenizer, style="chat", loss="answer", limit_tokens=512
        )
        tuned = adapters.attach(model, Lora(r=16, alpha=32, dropout=0.0), seed=1).train()
        for name, packing, limit_tokens in LAYOUTS:
            ((*batches,),) = microbatches(
                part.examples, limit_tokens=limit_tokens, packing=packing, workers=1
            )
            _pass(tuned, batches)  # warm-up
            seconds, cpu_seconds = _timed(partial(_pass, tuned, batches))
            rate = part.tokens / seconds
            print(
                f"train {dtype} {name} {limit_tokens}: {seconds:.2f} s, {cpu_seconds:.2f} s CPU, "
                f"{part.tokens} tokens, {rate:.0f} tok/s",
                flush=True,
            )


def _pass(model: Any, batches: list[Any]) -> None:
    import torch

    for batch in batches:
        targets = torch.tensor(batch.targets)
        columns = (targets != IGNORE_INDEX).any(dim=0).nonzero().flatten()
        logits = model(
            input_ids=torch.tensor(batch.tokens),
            position_ids=torch.tensor(batch.positions),
            logits_to_keep=columns,
            use_cache=False,
        ).logits.float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets[:, columns].flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )
        torch.autograd.backward(loss)


def _report_answers(model: Any, tokenizer: Any, prompts: list[list[int]], dtype: str, limit: int) -> None:
    ends = end_tokens(model, tokenizer)
    found: list[Any] = []
    seconds, cpu_seconds = _timed(
        lambda: found.extend(answer_batch(model, prompts, ends=ends, max_new_tokens=limit))
    )
    tokens = sum(len(answer.tokens) for answer in found)
    print(
        f"answer {dtype}: {seconds:.2f} s, {cpu_seconds:.2f} s CPU, {tokens} tokens, {tokens / seconds:.0f} tok/s",
        flush=True,
    )


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    started, started_cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - started, time.process_time() - started_cpu


if __name__ == "__main__":
    main()
