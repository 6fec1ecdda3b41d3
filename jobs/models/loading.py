"""Loads base models and tokenizers, and configures the libraries: reproducible, offline, without noise.

Call `prepare` before anything imports torch, which reads threads and accelerator at import.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from jobs.runtime.process import pin_threads
from launcher.outcome import Failure, Reason


def prepare(threads: int, device: str) -> None:
    """Pin the threads, choose the accelerator, ask for deterministic kernels, silence the libraries.

    Raises Failure(UNSUPPORTED) if `device` is a GPU and there is none.
    """
    pin_threads(threads)
    # The artifact is complete: loading must not query the hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    os.environ["TQDM_DISABLE"] = "1"
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    import torch

    torch.set_num_threads(threads)
    # As use_deterministic_algorithms(warn_only=True), which also imports a compiler for a second or two.
    torch.set_deterministic_debug_mode("warn")
    if device != "cpu" and not torch.cuda.is_available():
        raise Failure(
            Reason.UNSUPPORTED,
            f"the plan wants a GPU ({device}), and torch finds none",
            next_step="submit to a cluster with that GPU, or set hardware.device: cpu",
        )
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)


def place(device: str, local_rank: int = 0) -> Any:
    """The torch.device of a worker."""
    import torch

    return torch.device("cpu") if device == "cpu" else torch.device("cuda", local_rank)


def load_tokenizer(directory: Path) -> Any:
    """The model's tokenizer. Never runs code from the model."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise Failure(Reason.NO_SUCH_MODEL, f"the tokenizer cannot be loaded: {_one_line(error)}") from None


def load_model(directory: Path, *, dtype: str, quantization: str = "none", local_rank: int = 0) -> Any:
    """The base model, from safetensors only: a quantized one on its GPU, others in main memory.

    Raises Failure(NO_SUCH_MODEL) if it cannot be loaded, Failure(UNSUPPORTED) without bitsandbytes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "attn_implementation": attention()}
    if quantization != "none":
        options["quantization_config"] = _quantization(quantization, dtype)
        if torch.cuda.is_available():
            options["device_map"] = {"": local_rank}
    try:
        return AutoModelForCausalLM.from_pretrained(
            directory, use_safetensors=True, trust_remote_code=False, **options
        )
    except (ValueError, OSError, KeyError) as error:
        raise Failure(Reason.NO_SUCH_MODEL, f"the model cannot be loaded: {_one_line(error)}") from None


def attention() -> str:
    """Flash attention if installed on a GPU (packing needs no mask with it), else torch's SDPA."""
    import torch

    installed = importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if torch.cuda.is_available() and installed else "sdpa"


def _quantization(kind: str, dtype: str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Failure(
            Reason.UNSUPPORTED,
            f"quantization {kind} needs the package bitsandbytes, which is not installed",
            next_step="pip install bitsandbytes, or set training.quantization: none",
        )
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
