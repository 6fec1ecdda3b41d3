"""What training costs a second: tokens, model FLOP utilisation where the device's peak is known, memory."""

from __future__ import annotations

import resource
import sys

from launcher.spec import catalog

#: A LoRA step computes forward and the gradients of activations, not of the frozen weights: 2 N each.
_FLOPS_PER_PARAMETER_AND_TOKEN = 4
_GIB = 1 << 30


class Throughput:
    """Running rates over the steps of this attempt; evaluation and checkpoints are not counted."""

    def __init__(self, device: str, workers: int, parameters: int) -> None:
        self._workers = workers
        self._parameters = parameters
        known = catalog.devices().get(device)
        self._peak_tflops = known.peak_tflops if known else None
        self._device = device
        self._tokens = 0
        self._learnt = 0
        self._seconds = 0.0

    def add(self, tokens: int, learnt_tokens: int, seconds: float) -> None:
        """Count one step; `tokens` without padding, over all workers."""
        self._tokens += tokens
        self._learnt += learnt_tokens
        self._seconds += seconds

    def measures(self) -> dict[str, float]:
        """tok_s and trained_tok_s over all workers, mfu per device, memory_gib of this worker at its peak."""
        seconds = max(self._seconds, 1e-9)
        measured = {
            "tok_s": round(self._tokens / seconds, 1),
            "trained_tok_s": round(self._learnt / seconds, 1),
            "memory_gib": round(_peak_memory_bytes(self._device) / _GIB, 2),
        }
        if self._peak_tflops:
            flops = _FLOPS_PER_PARAMETER_AND_TOKEN * self._parameters * self._tokens / seconds
            measured["mfu"] = round(flops / (self._peak_tflops * 1e12 * self._workers), 4)
        return measured


def _peak_memory_bytes(device: str) -> int:
    if device != "cpu":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
