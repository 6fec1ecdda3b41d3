"""Source `random`: a tiny random Llama with a byte tokenizer, for tests. Same seed, same bytes.

Built from JSON and numpy: importing torch and transformers would take longer than the whole stage.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.spec.stages import RandomModel

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_PAD, _END = 0, 1
_HEAD_SIZE = 16
_INNER_FACTOR = 2


def create(source: RandomModel, out: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files to `out`."""
    alphabet = _byte_alphabet()
    _write(out / "tokenizer.json", _tokenizer(alphabet))
    _write(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|end|>",
            "pad_token": "<|pad|>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 4096,
        },
    )
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    hidden = max(_HEAD_SIZE, source.hidden_size // _HEAD_SIZE * _HEAD_SIZE)
    vocabulary = len(_SPECIAL_TOKENS) + len(alphabet)
    _write(out / "config.json", _config(source, hidden, vocabulary))
    _write(out / "generation_config.json", {"eos_token_id": _END, "pad_token_id": _PAD})
    _write_weights(out / "model.safetensors", source, hidden, vocabulary)


def _config(source: RandomModel, hidden: int, vocabulary: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": _INNER_FACTOR * hidden,
        "num_hidden_layers": source.layers,
        "num_attention_heads": hidden // _HEAD_SIZE,
        "num_key_value_heads": hidden // _HEAD_SIZE,
        "head_dim": _HEAD_SIZE,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "eos_token_id": _END,
        "pad_token_id": _PAD,
        "dtype": "float32",
    }


def _write_weights(path: Path, source: RandomModel, hidden: int, vocabulary: int) -> None:
    import numpy
    from safetensors.numpy import save_file

    generator = numpy.random.default_rng(source.seed)
    inner = _INNER_FACTOR * hidden

    def normal(rows: int, columns: int) -> Any:  # (rows, columns)
        return generator.standard_normal((rows, columns), dtype=numpy.float32) / numpy.float32(columns**0.5)

    ones = numpy.ones(hidden, dtype=numpy.float32)
    tensors = {"model.embed_tokens.weight": normal(vocabulary, hidden), "model.norm.weight": ones}
    for layer in range(source.layers):
        base = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{base}self_attn.{name}.weight"] = normal(hidden, hidden)
        tensors[f"{base}mlp.gate_proj.weight"] = normal(inner, hidden)
        tensors[f"{base}mlp.up_proj.weight"] = normal(inner, hidden)
        tensors[f"{base}mlp.down_proj.weight"] = normal(hidden, inner)
        tensors[f"{base}input_layernorm.weight"] = ones
        tensors[f"{base}post_attention_layernorm.weight"] = ones
    save_file(tensors, path, metadata={"format": "pt"})


def _byte_alphabet() -> list[str]:
    """The printable character for each byte 0..255 in byte-level tokenizers, as defined by GPT-2."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


def _tokenizer(alphabet: list[str]) -> dict[str, object]:
    special = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, token in enumerate(_SPECIAL_TOKENS)
    ]
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL_TOKENS, *alphabet))}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
