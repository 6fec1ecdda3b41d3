"""GGUF -> float32 safetensors and a tokenizer, once; the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from jobs.models.loading import prepare
from launcher.outcome import Failure, Reason


def convert(path: Path, out: Path) -> None:
    """Dequantise the model in `path` to float32 and write it to `out`.

    Raises Failure(NO_SUCH_MODEL) for a file that is none, Failure(UNSUPPORTED) without the reader.
    """
    # Dequantising is one thread's work, and no result may depend on their number.
    prepare(threads=1, device="cpu")
    try:
        import gguf  # noqa: F401  (transformers reports its absence much later and less clearly)
    except ImportError:
        raise Failure(
            Reason.UNSUPPORTED,
            "reading a GGUF file needs the package gguf",
            next_step="pip install 'tuneyard[jobs]'",
        ) from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place, name = str(path.parent), path.name
    try:
        with _read_once():
            tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
            model = AutoModelForCausalLM.from_pretrained(
                place, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            )
    except (ValueError, KeyError) as error:
        raise Failure(Reason.NO_SUCH_MODEL, f"the GGUF file cannot be read: {error}", where=name) from None
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@contextmanager
def _read_once() -> Iterator[None]:
    """While this lasts, a file is read once and a model's table of names is made once.

    transformers reads the file for the tokenizer, the config and the weights each, and makes the table anew
    for every module: more than half of a small model's conversion.
    """
    import gguf

    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(reader), cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names
