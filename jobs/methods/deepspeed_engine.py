"""DeepSpeed around a model with an adapter: forward and backward, update, optimizer state by name.

The loss of a step is the sum over its trained tokens, divided by their number over all micro-batches
and workers, so it does not depend on accumulation, packing or the number of workers. DeepSpeed averages
gradients over workers; multiplying by the number of workers undoes that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobs.methods.microbatches import EMPTY, IGNORE_INDEX, Microbatch
from jobs.models.adapters import trainable
from launcher.spec.contenders import Training

if TYPE_CHECKING:
    from torch import Tensor

_MOMENTS = ("exp_avg", "exp_avg_sq")
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_BUCKET_ELEMENTS = 2_000_000


def deepspeed_config(training: Training, workers: int) -> dict[str, object]:
    """No mixed precision here: the base model is frozen, and the adapter is float32."""
    return {
        "train_batch_size": workers,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # `update` ends a step: steps differ in their number of micro-batches.
        "managed_gradient_accumulation": False,
        "gradient_clipping": training.max_gradient_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": training.zero_stage,
            "overlap_comm": False,
            # Allocated at this size; the default, 500 million, is 2 GB for adapters of a few MB.
            "reduce_bucket_size": _BUCKET_ELEMENTS,
            "allgather_bucket_size": _BUCKET_ELEMENTS,
        },
    }


class Engine:
    """A model with an adapter under DeepSpeed. All workers must make the same calls in the same order."""

    def __init__(
        self, model: Any, training: Training, workers: int, device: Any, base_parameters: int
    ) -> None:
        import deepspeed
        import torch

        self.workers = workers
        #: Number of parameters of the model without its adapter.
        self.base_parameters = base_parameters
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
        self._head_positions: Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._at_head_positions)

    def loss_sum(self, batch: Microbatch) -> Tensor:
        """Cross-entropy in float32, summed over the trained tokens of `batch`; a scalar.

        The language-model head runs on trained positions only: with short answers, a fraction of its
        work and memory.
        """
        import torch

        cache = self._prefill_prefix(batch)
        targets = torch.tensor(batch.targets, device=self.device)  # (rows, columns)
        trained = targets != IGNORE_INDEX
        self._head_positions = trained.flatten().nonzero().flatten() if batch.trained_tokens else None
        logits = self._engine(
            input_ids=torch.tensor(batch.tokens, device=self.device),
            position_ids=torch.tensor(batch.positions, device=self.device),
            past_key_values=cache,
            use_cache=bool(batch.prefix),
        ).logits.float()  # (1, trained tokens, vocabulary)
        if not batch.trained_tokens:
            # Part of the graph, so that this worker takes part in the gradient all-reduce.
            zero: Tensor = logits.sum() * 0.0
            return zero
        return torch.nn.functional.cross_entropy(logits[0], targets[trained], reduction="sum")

    def _prefill_prefix(self, batch: Microbatch) -> Any:
        """The KV cache of the rows' common prefix, computed once with gradients; None without a prefix."""
        import torch
        from transformers import DynamicCache

        if not batch.prefix:
            return None
        cache = DynamicCache(config=self.model.config)
        self._head_positions = torch.zeros(1, dtype=torch.long, device=self.device)
        tokens = torch.tensor([batch.prefix], device=self.device)
        self._engine(input_ids=tokens, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(batch.tokens))
        return cache

    def _at_head_positions(self, _head: Any, inputs: tuple[Any, ...]) -> Any:
        """Forward pre-hook of the language-model head: (rows, columns, hidden) -> (1, positions, hidden)."""
        if self._head_positions is None:
            return inputs
        return inputs[0].flatten(0, 1)[self._head_positions][None]

    def accumulate(self, batch: Microbatch, trained_tokens_of_step: int) -> Tensor:
        """Forward and backward of one micro-batch; returns its loss sum, detached."""
        loss = self.loss_sum(batch)
        self._engine.backward(loss * (self.workers / trained_tokens_of_step), scale_wrt_gas=False)
        return loss.detach()

    def update(self, learning_rate: float) -> None:
        """Clip the accumulated gradients and apply them at this learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()

    def training_mode(self, on: bool) -> None:
        """Switch dropout on or off."""
        self._engine.train(on)

    def all_reduce_sum(self, *values: float) -> list[float]:
        """The sums of `values` over all workers, in float64."""
        import torch

        if self.workers == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    # -- state: whole tensors by name, independent of the ZeRO layout -------------------------
    def weights(self) -> dict[str, Tensor]:
        """The adapter in float32 on the CPU, whole on every worker."""
        from deepspeed.utils import safe_get_full_fp32_param

        whole: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            value = safe_get_full_fp32_param(parameter)
            value = parameter.detach() if value is None else value
            whole[name] = value.float().cpu().clone().contiguous()
        return whole

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments as `exp_avg.<name>` and `exp_avg_sq.<name>`, whole on every worker."""
        from deepspeed.utils import safe_get_full_optimizer_state

        whole: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for moment in _MOMENTS:
                value = safe_get_full_optimizer_state(parameter, moment)
                if value is None:  # ZeRO stage 0: torch's optimizer holds the parameters
                    value = self._torch_optimizer.state[parameter][moment]
                whole[f"{moment}.{name}"] = value.float().cpu().clone().contiguous()
        return whole

    def restore_moments(self, whole: dict[str, Tensor], step: int) -> None:
        """Continue after `step` updates with these moments. The weights must be loaded before DeepSpeed wraps them.

        The optimizer creates its state at its first update: an update at rate 0 with zero gradients
        creates it and changes no weight, then the state is overwritten.
        """
        from deepspeed.utils import safe_get_full_optimizer_state, safe_set_full_optimizer_state

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
