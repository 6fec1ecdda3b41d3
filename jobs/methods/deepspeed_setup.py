"""Sets up what an Engine needs: the process group, DeepSpeed's configuration, the model with its adapter."""

from __future__ import annotations

import atexit
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from jobs.methods.checkpoint import Checkpoint
from jobs.methods.deepspeed_engine import Engine, deepspeed_config
from jobs.methods.training_job import TrainingJob
from jobs.models import adapters, loading
from launcher.spec.contenders import Training


def init_process_group(rank: int, local_rank: int, workers: int, rendezvous: str, device: str) -> None:
    """Join the process group of all workers. `rendezvous` is a file:// or tcp:// URL.

    The group lasts as long as the process: DeepSpeed keeps references to it, so a process that
    trains twice keeps its first group.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        return
    if urlsplit(rendezvous).hostname in (None, "127.0.0.1", "localhost"):
        # A container's host name often does not resolve; workers of one machine use loopback.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(local_rank), WORLD_SIZE=str(workers))
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    if device == "cpu":
        # Do not build DeepSpeed's shared-memory kernels, which takes half a minute and a compiler: gloo is enough.
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


def build_engine(job: TrainingJob, resumed: Checkpoint | None) -> Engine:
    """The base model with a LoRA adapter under DeepSpeed, in training mode, continued from `resumed`."""
    import torch

    training = job.settings.training
    device = loading.place(job.settings.device, job.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    zero3 = _partitioned_loading(training, job.workers)
    model = loading.load_model(
        job.model, dtype=training.dtype, quantization=training.quantization, local_rank=job.local_rank
    )
    base_parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    if training.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = adapters.attach(model, job.settings.lora, job.settings.seed)
    if resumed:
        with torch.no_grad():
            for name, parameter in adapters.trainable(model).items():
                parameter.copy_(resumed.weights[name])
    engine = Engine(model, training, job.workers, device, base_parameters)
    engine.training_mode(True)
    del zero3  # must live until the model is loaded
    if resumed:
        engine.restore_moments(resumed.moments, resumed.progress.step)
    return engine


def _partitioned_loading(training: Training, workers: int) -> Any:
    """Under ZeRO stage 3, an object that makes transformers partition weights while it lives; else None."""
    if training.zero_stage != 3:
        return None
    from transformers.integrations import HfDeepSpeedConfig

    return HfDeepSpeedConfig(deepspeed_config(training, workers))
