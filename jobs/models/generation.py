"""Greedy answers of one batch: what `transformers` computes, without its general generate loop.

Rows that reached their end leave the batch at once, so a batch costs what its rows need. What all
prompts begin with is read once. What follows is padded on the left; positions and the attention
mask leave the padding out::

    shared      i i i
    tokens      0 a a      mask   1 1 1 0 1 1      positions   . 3 4
                b b b             1 1 1 1 1 1                  3 4 5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.models.examples import shared_tokens
from launcher.outcome import Failure, Reason


@dataclass(frozen=True)
class Answer:
    """Token ids without the end-of-sequence token, and why generation ended."""

    tokens: tuple[int, ...]
    finish: Literal["stop", "length"]


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the tokenizer's end of sequence and what the model's own settings name."""
    named = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return frozenset(int(token) for token in ends if token is not None)


def check_lengths(longest_prompt_tokens: int, max_new_tokens: int, model: Any) -> None:
    """Raise Failure(BAD_DATA) where prompt and answer together are longer than the model can read."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest_prompt_tokens + max_new_tokens > limit:
        raise Failure(
            Reason.BAD_DATA,
            f"a prompt of {longest_prompt_tokens} tokens and an answer of up to {max_new_tokens} "
            f"do not fit into the model's {limit}",
            next_step="lower generation.max_new_tokens, leave long rows out, or take a model that reads more",
        )


def answer_batch(
    model: Any, prompts: Sequence[Sequence[int]], *, ends: frozenset[int], max_new_tokens: int
) -> list[Answer]:
    """The greedy continuation of each prompt, up to an end token or `max_new_tokens` tokens."""
    import torch

    device = model.device
    shared = _shared_tokens(prompts)
    width = max(len(prompt) for prompt in prompts) - shared
    tokens = torch.zeros((len(prompts), width), dtype=torch.long)  # (rows, columns)
    mask = torch.ones((len(prompts), shared + width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        padding = shared + width - len(prompt)
        tokens[row, padding:] = torch.tensor(prompt[shared:])
        mask[row, shared : shared + padding] = 0
    tokens, mask = tokens.to(device), mask.to(device)
    positions = (mask.cumsum(dim=1)[:, shared:] - 1).clamp(min=0)
    cache = _read_once(model, prompts[0][:shared], len(prompts))
    written: list[list[int]] = [[] for _ in prompts]
    finish: list[Literal["stop", "length"]] = ["length"] * len(prompts)
    alive = list(range(len(prompts)))  # the prompt that each row of the tensors belongs to
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


def _shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, at least one of each left to go on from; 0 for a single prompt."""
    if len(prompts) == 1:
        return 0
    return min(shared_tokens(prompts), min(map(len, prompts)) - 1)


def _read_once(model: Any, shared: Sequence[int], rows: int) -> Any:
    """A cache of keys and values that already holds `shared` for every row."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if shared:
        tokens = torch.tensor([list(shared)], device=model.device)
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
    """The model ready to answer, with its adapter if one is given.

    An adapter is merged into the weights in float32, then all is cast to `dtype`. Quantised
    weights are too coarse to take it up: there it stays beside them.
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
