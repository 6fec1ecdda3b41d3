"""DeepSpeed around the model: one forward and backward pass, one update, and the optimizer's state by name.

The loss of a step is the sum over the step's learnt tokens divided by their number over all
micro-batches and workers, so accumulation, packing and the number of workers leave it as it is.
DeepSpeed averages gradients over workers; that is undone by multiplying with their number.
"""

from __future__ import annotations

import atexit
import os
from typing import Any
from urllib.parse import urlsplit

from jobs.methods.microbatches import IGNORED, Microbatch
from jobs.models.adapters import trainable
from launcher.spec.contenders import Training

_MOMENTS = ("exp_avg", "exp_avg_sq")
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_BUCKET_ELEMENTS = 2_000_000


def deepspeed_config(training: Training, workers: int) -> dict[str, Any]:
    """What DeepSpeed is told. Weights are float32 to it: the base is frozen, the adapter is float32."""
    return {
        "train_batch_size": workers,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # A step ends where `update` is called: steps differ in their number of micro-batches.
        "managed_gradient_accumulation": False,
        "gradient_clipping": training.max_gradient_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": training.zero_stage,
            "overlap_comm": False,
            # Buffers are allocated at this size; the default of 500 million would be 2 GB for adapters of a few MB.
            "reduce_bucket_size": _BUCKET_ELEMENTS,
            "allgather_bucket_size": _BUCKET_ELEMENTS,
        },
    }


def partitioned_loading(training: Training, workers: int) -> Any:
    """Under ZeRO stage 3, an object that makes loading partition the weights while it lives; else None."""
    if training.zero_stage != 3:
        return None
    from transformers.integrations import HfDeepSpeedConfig

    return HfDeepSpeedConfig(deepspeed_config(training, workers))


def join(rank: int, local_rank: int, workers: int, rendezvous: str, device: str) -> None:
    """Join the group of workers for the rest of this process; they meet at `rendezvous`, a file:// or tcp:// URL.

    DeepSpeed remembers groups beyond their end, so a process that trains twice keeps its group.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        return
    if urlsplit(rendezvous).hostname in (None, "127.0.0.1", "localhost"):
        # A container's host name often resolves to nothing; workers of one machine meet on loopback.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(local_rank), WORLD_SIZE=str(workers))
    import deepspeed
    import deepspeed.ops

    quiet()
    if device == "cpu":
        # Nothing to build: gloo carries what workers on one CPU exchange; DeepSpeed's own shared-memory
        # kernels would cost half a minute of compilation and a compiler.
        deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(
        dist_backend="gloo" if device == "cpu" else "nccl",
        auto_mpi_discovery=False,
        verbose=False,
        init_method=rendezvous,
        rank=rank,
        world_size=workers,
    )
    atexit.register(torch.distributed.destroy_process_group)


def quiet() -> None:
    """Only DeepSpeed's errors reach the log."""
    import logging

    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)


class Engine:
    """A model with an adapter under DeepSpeed. All workers make the same calls in the same order."""

    def __init__(self, model: Any, training: Training, workers: int, device: Any) -> None:
        import deepspeed
        import torch

        self.workers = workers
        self.device = device
        self.model = model
        self.parameters = trainable(model)
        optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=0.0,
            betas=_BETAS,
            eps=_EPSILON,
            weight_decay=training.weight_decay,
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            model_parameters=optimizer.param_groups[0]["params"],
            optimizer=optimizer,
            config=deepspeed_config(training, workers),
            dist_init_required=False,
        )
        self._torch_optimizer = optimizer
        self._head_positions: Any = None
        model.get_output_embeddings().register_forward_pre_hook(self._at_head_positions)

    def loss_sum(self, batch: Microbatch) -> Any:
        """Cross-entropy in float32, summed over the learnt tokens of `batch`; a scalar tensor.

        The language-model head runs on the positions that learn something alone: with short answers
        that is a fraction of its work and memory.
        """
        import torch

        cache = self._read_once(batch)
        targets = torch.tensor(batch.targets, device=self.device)  # (rows, columns)
        learnt = targets != IGNORED
        self._head_positions = learnt.flatten().nonzero().flatten() if batch.learnt_tokens else None
        logits = self._engine(
            input_ids=torch.tensor(batch.tokens, device=self.device),
            position_ids=torch.tensor(batch.positions, device=self.device),
            past_key_values=cache,
            use_cache=bool(batch.shared),
        ).logits.float()  # (1, learnt tokens, vocabulary)
        if not batch.learnt_tokens:
            # Joined to the graph, so that this worker takes part in the exchange of gradients.
            return logits.sum() * 0.0
        return torch.nn.functional.cross_entropy(logits[0], targets[learnt], reduction="sum")

    def _read_once(self, batch: Microbatch) -> Any:
        """Keys and values of what all rows begin with, computed once and joined to the graph; None for nothing."""
        import torch
        from transformers import DynamicCache

        if not batch.shared:
            return None
        cache = DynamicCache(config=self.model.config)
        self._head_positions = torch.zeros(1, dtype=torch.long, device=self.device)
        tokens = torch.tensor([batch.shared], device=self.device)
        self._engine(input_ids=tokens, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(batch.tokens))
        return cache

    def _at_head_positions(self, _head: Any, inputs: tuple[Any, ...]) -> Any:
        """In front of the language-model head: (rows, columns, hidden) -> (1, chosen positions, hidden)."""
        if self._head_positions is None:
            return inputs
        return inputs[0].flatten(0, 1)[self._head_positions][None]

    def accumulate(self, batch: Microbatch, learnt_tokens_of_step: int) -> Any:
        """Forward and backward of one micro-batch; returns its loss sum, detached."""
        loss = self.loss_sum(batch)
        self._engine.backward(loss * (self.workers / learnt_tokens_of_step), scale_wrt_gas=False)
        return loss.detach()

    def update(self, learning_rate: float) -> None:
        """Clip and apply the accumulated gradients at this rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()

    def training_mode(self, on: bool) -> None:
        """Switch dropout on or off."""
        self._engine.train(on)

    def total(self, *values: float) -> list[float]:
        """The sums of `values` over all workers, in float64."""
        import torch

        if self.workers == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    # -- state, whole and by name, whatever the layout ---------------------------------------
    def weights(self) -> dict[str, Any]:
        """The adapter in float32 on the CPU, whole on every worker."""
        from deepspeed.utils import safe_get_full_fp32_param

        whole = {}
        for name, parameter in self.parameters.items():
            value = safe_get_full_fp32_param(parameter)
            value = parameter.detach() if value is None else value
            whole[name] = value.float().cpu().clone().contiguous()
        return whole

    def moments(self) -> dict[str, Any]:
        """AdamW's moments as `exp_avg.<name>` and `exp_avg_sq.<name>`, whole on every worker."""
        from deepspeed.utils import safe_get_full_optimizer_state

        whole = {}
        for name, parameter in self.parameters.items():
            for moment in _MOMENTS:
                value = safe_get_full_optimizer_state(parameter, moment)
                if value is None:  # ZeRO stage 0: torch's optimizer holds the parameters themselves
                    value = self._torch_optimizer.state[parameter][moment]
                whole[f"{moment}.{name}"] = value.float().cpu().clone().contiguous()
        return whole

    def restore_moments(self, whole: dict[str, Any], step: int) -> None:
        """Continue after `step` updates with these moments; the weights were loaded before DeepSpeed took them.

        The optimizer makes its state at its first update. One at rate 0 with gradient 0 makes it
        and changes no weight; then the state is overwritten.
        """
        from deepspeed.utils import safe_get_full_optimizer_state, safe_set_full_optimizer_state

        from jobs.methods.microbatches import EMPTY

        self.accumulate(EMPTY, 1)
        self.update(0.0)
        for name, parameter in self.parameters.items():
            for moment in _MOMENTS:
                value = whole[f"{moment}.{name}"].to(self.device)
                if safe_get_full_optimizer_state(parameter, moment) is None:
                    self._torch_optimizer.state[parameter][moment].copy_(value)
                else:
                    safe_set_full_optimizer_state(parameter, value, moment)
        for state in self._torch_optimizer.state.values():
            state["step"].fill_(step)
