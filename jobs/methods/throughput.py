"""Training throughput: tokens per second, model FLOPs utilization (MFU) if the device's peak is known, memory."""

from __future__ import annotations

from jobs.runtime.process import peak_memory_bytes
from launcher.spec import catalog

#: A LoRA step computes the forward pass and gradients of activations, 2 each; frozen weights need no gradient.
_FLOPS_PER_PARAMETER_AND_TOKEN = 4
_GIB = 1 << 30


class Throughput:
    """Rates over the steps of this attempt; evaluation and checkpoints are not counted."""

    def __init__(self, device: str, workers: int, parameters: int) -> None:
        self._workers = workers
        self._parameters = parameters
        known = catalog.devices().get(device)
        self._peak_tflops = known.peak_tflops if known else None
        self._device = device
        self._tokens = 0
        self._trained = 0
        self._seconds = 0.0

    def add(self, tokens: int, trained_tokens: int, seconds: float) -> None:
        """Add one step; `tokens` over all workers, without padding."""
        self._tokens += tokens
        self._trained += trained_tokens
        self._seconds += seconds

    def measures(self) -> dict[str, float]:
        """`tok_s` and `trained_tok_s` of all workers, `mfu` per device, peak `memory_gib` of this worker."""
        seconds = max(self._seconds, 1e-9)
        measured = {
            "tok_s": round(self._tokens / seconds, 1),
            "trained_tok_s": round(self._trained / seconds, 1),
            "memory_gib": round(_memory_bytes(self._device) / _GIB, 2),
        }
        if self._peak_tflops:
            flops = _FLOPS_PER_PARAMETER_AND_TOKEN * self._parameters * self._tokens / seconds
            measured["mfu"] = round(flops / (self._peak_tflops * 1e12 * self._workers), 4)
        return measured


def _memory_bytes(device: str) -> int:
    if device != "cpu":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return peak_memory_bytes(children=False)
