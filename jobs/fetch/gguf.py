"""Converts a GGUF file to float32 safetensors and a tokenizer, always with the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from jobs.models.loading import prepare
from launcher.outcome import Failure, Reason


def convert(path: Path, out: Path) -> None:
    """Dequantize the model in `path` to float32 and write it to `out`.

    Raises Failure(NO_SUCH_MODEL) for an unreadable file, Failure(UNSUPPORTED) without the package gguf.
    """
    # Dequantization uses one thread, and the result must not depend on their number.
    prepare(threads=1, device="cpu")
    try:
        import gguf  # noqa: F401  (transformers reports its absence later and less clearly)
    except ImportError:
        raise Failure(
            Reason.UNSUPPORTED,
            "reading a GGUF file needs the package gguf",
            next_step="pip install 'tuneyard[jobs]'",
        ) from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    directory, name = str(path.parent), path.name
    try:
        with _cached_reader():
            tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=name)
            model = AutoModelForCausalLM.from_pretrained(
                directory,
                gguf_file=name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
    except (ValueError, KeyError) as error:
        raise Failure(Reason.NO_SUCH_MODEL, f"the GGUF file cannot be read: {error}", where=name) from None
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@contextmanager
def _cached_reader() -> Iterator[None]:
    """Cache the GGUF reader and the table of tensor names while the context is open.

    transformers opens the file for the tokenizer, the config and the weights each, and rebuilds the table
    for every module: more than half of a small model's conversion time.
    """
    import gguf

    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(reader), cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names
