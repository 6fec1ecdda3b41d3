"""Greedy decoding of one batch: the answers of transformers' `generate`, without its general loop.

Finished rows leave the batch at once, so a batch costs what its rows need. The prompts' common prefix
is prefilled once. The rest is padded on the left; the attention mask and the positions skip padding::

    prefix      i i i
    tokens      0 a a      mask   1 1 1 0 1 1      positions   . 3 4
                b b b             1 1 1 1 1 1                  3 4 5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.models.examples import common_prefix_tokens
from launcher.outcome import Failure, Reason


@dataclass(frozen=True)
class Answer:
    """Token ids without the end token, and why generation ended: an end token, or the length limit."""

    tokens: tuple[int, ...]
    finish: Literal["stop", "length"]


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's end of sequence and those of the model's generation config."""
    named = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return frozenset(int(token) for token in ends if token is not None)


def check_lengths(longest_prompt_tokens: int, max_new_tokens: int, model: Any) -> None:
    """Raise Failure(BAD_DATA) if prompt and answer together exceed the model's context length."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest_prompt_tokens + max_new_tokens > limit:
        raise Failure(
            Reason.BAD_DATA,
            f"a prompt of {longest_prompt_tokens} tokens and an answer of up to {max_new_tokens} "
            f"do not fit into the model's context of {limit}",
            next_step="lower generation.max_new_tokens, leave long rows out, or use a model with a longer context",
        )


def answer_batch(
    model: Any, prompts: Sequence[Sequence[int]], *, ends: frozenset[int], max_new_tokens: int
) -> list[Answer]:
    """The greedy continuation of each prompt, up to an end token or `max_new_tokens` tokens."""
    import torch

    device = model.device
    prefix = _prefix_tokens(prompts)
    width = max(len(prompt) for prompt in prompts) - prefix
    tokens = torch.zeros((len(prompts), width), dtype=torch.long)  # (rows, columns)
    mask = torch.ones((len(prompts), prefix + width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        padding = prefix + width - len(prompt)
        tokens[row, padding:] = torch.tensor(prompt[prefix:])
        mask[row, prefix : prefix + padding] = 0
    tokens, mask = tokens.to(device), mask.to(device)
    positions = (mask.cumsum(dim=1)[:, prefix:] - 1).clamp(min=0)
    cache = _prefill(model, prompts[0][:prefix], len(prompts))
    written: list[list[int]] = [[] for _ in prompts]
    finish: list[Literal["stop", "length"]] = ["length"] * len(prompts)
    alive = list(range(len(prompts)))  # row of the tensors -> prompt
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            logits = model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]  # (rows, vocabulary)
            chosen = logits.float().argmax(dim=-1)  # (rows,)
            going = []
            for row, token in enumerate(chosen.tolist()):
                if token in ends:
                    finish[alive[row]] = "stop"
                else:
                    written[alive[row]].append(token)
                    going.append(row)
            if not going:
                break
            if len(going) < len(alive):
                kept = torch.tensor(going, device=device)
                cache.batch_select_indices(kept)
                mask, positions, chosen = mask[kept], positions[kept], chosen[kept]
                alive = [alive[row] for row in going]
            tokens = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones((len(alive), 1))], dim=1)
            positions = positions[:, -1:] + 1
    return [Answer(tuple(ids), end) for ids, end in zip(written, finish, strict=True)]


def _prefix_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Length of the common prefix that leaves at least one token of each prompt; 0 for a single prompt."""
    if len(prompts) == 1:
        return 0
    return min(common_prefix_tokens(prompts), min(map(len, prompts)) - 1)


def _prefill(model: Any, prefix: Sequence[int], rows: int) -> Any:
    """A KV cache that holds `prefix` for every row."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if prefix:
        tokens = torch.tensor([list(prefix)], device=model.device)
        with torch.inference_mode():
            model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(rows)
    return cache


def load(
    directory: Path,
    adapter_directory: Path | None,
    *,
    dtype: str,
    device: str,
    quantization: str = "none",
) -> Any:
    """The model in evaluation mode, with its adapter if one is given.

    An adapter is merged into the weights in float32, then the model is cast to `dtype`. With quantized
    weights, which are too coarse to merge into, the adapter stays separate.
    """
    import torch

    from jobs.models import adapters, loading

    if quantization != "none":
        model = loading.load_model(directory, dtype=dtype, quantization=quantization)
        if adapter_directory:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter_directory))
        return model.eval()
    model = loading.load_model(directory, dtype="float32" if adapter_directory else dtype)
    if adapter_directory:
        merged = adapters.merge(model, adapter_directory)
        print(f"adapter merged into {merged} matrices", flush=True)
    model = model.to(device=loading.place(device), dtype=getattr(torch, dtype))
    return model.eval()
