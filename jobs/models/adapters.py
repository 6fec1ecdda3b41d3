"""LoRA adapters: attached to a model for training, written to files, merged into the weights for generation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.outcome import Failure, Reason
from launcher.spec.contenders import Lora

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class BaseReference:
    """The base model of an adapter, as peft's config names it: `base_model_name_or_path` and `revision`."""

    name: str
    revision: str | None = None


def attach(model: Any, lora: Lora, seed: int) -> Any:
    """Add a new float32 adapter and freeze everything else. Raises Failure(BAD_EXPERIMENT) for unknown targets."""
    import torch
    from peft import LoraConfig, get_peft_model

    last_names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = tuple(
        f"lora.targets: the model has no module '{name}'" for name in lora.targets if name not in last_names
    )
    if missing:
        raise Failure(Reason.BAD_EXPERIMENT, "the adapter does not fit the model", problems=missing)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(lora.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def trainable(model: Any) -> dict[str, Parameter]:
    """The adapter's parameters, named as in a peft file, in the model's order."""
    return {
        name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def write(weights: dict[str, Tensor], model: Any, base: BaseReference, out: Path) -> None:
    """Write the adapter in peft's format; the same adapter gives the same bytes."""
    from safetensors.torch import save_file

    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    config = {**model.peft_config["default"].to_dict(), "inference_mode": True}
    config["base_model_name_or_path"] = base.name
    if base.revision is not None:
        config["revision"] = base.revision
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (out / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge(model: Any, directory: Path) -> int:
    """Merge the adapter in `directory` into the weights of `model`, in float32; return the number of matrices.

    W += alpha / r * B A, with A (r x in) and B (out x r). Raises Failure(CORRUPT_ARTIFACT) if it does not fit.
    """
    import torch
    from safetensors.torch import load_file

    config = json.loads((directory / CONFIG).read_bytes())
    scale = config["lora_alpha"] / config["r"]
    tensors = load_file(directory / WEIGHTS)
    modules = dict(model.named_modules())
    names = sorted(name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight"))
    for name in names:
        module = modules.get(name.removeprefix("base_model.model."))
        if module is None:
            raise Failure(
                Reason.CORRUPT_ARTIFACT, f"the adapter is for another model: it has no module {name}"
            )
        down = tensors[f"{name}.lora_A.weight"].to(module.weight.device, torch.float32)
        up = tensors[f"{name}.lora_B.weight"].to(module.weight.device, torch.float32)
        with torch.no_grad():
            merged = module.weight.to(torch.float32) + scale * (up @ down)
            module.weight.copy_(merged.to(module.weight.dtype))
    return len(names)
