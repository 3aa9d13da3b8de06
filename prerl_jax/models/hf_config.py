"""Hugging Face's config.json and generation_config.json, to and from `DecoderConfig`.

A switch that the decoder does not support is an error that names it: ignoring the switch would give another model.
Defaults are those of transformers' configuration classes.
"""

from __future__ import annotations

from typing import Any

from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.rope import LinearRope, Llama3Rope

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
DEFAULTS = {
    "llama": {"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    "qwen2": {"max_position_embeddings": 32768},
    "qwen3": {"max_position_embeddings": 32768, "head_dim": 128},
}
LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def parse_config(raw: dict[str, Any], generation: dict[str, Any] | None = None) -> DecoderConfig:
    """The DecoderConfig of a parsed config.json.

    Args:
      raw: config.json.
      generation: generation_config.json; None where there is none. The EOS ids are its own, then those of config.json.

    Raises ValueError that names a missing key, an unknown architecture, or a switch that the decoder does not support.
    """
    generation = generation or {}
    family = _known_family(raw)
    c = DEFAULTS[family] | raw
    heads, width = _count(c, "num_attention_heads"), _count(c, "hidden_size")
    theta, scaling = _rope(c)
    bias = True if family == "qwen2" else _switch(c, "attention_bias")

    def token(key):
        return c.get(key) if c.get(key) is not None else generation.get(key)

    return DecoderConfig(
        model_type=family,
        vocab_size=_count(c, "vocab_size"),
        hidden_size=width,
        intermediate_size=_count(c, "intermediate_size"),
        num_layers=_count(c, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=_count(c, "num_key_value_heads", heads),
        head_dim=_count(c, "head_dim", width // heads),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=_positive("rms_norm_eps", c.get("rms_norm_eps", 1e-6)),
        tied=_switch(c, "tie_word_embeddings"),
        qk_norm=family == "qwen3",
        qkv_bias=bias,
        output_bias=bias and family != "qwen2",
        mlp_bias=family == "llama" and _switch(c, "mlp_bias"),
        max_position_embeddings=_count(c, "max_position_embeddings"),
        bos_token_id=token("bos_token_id"),
        eos_token_ids=_ids(generation.get("eos_token_id"), raw.get("eos_token_id")) or _ids(c.get("eos_token_id")),
        pad_token_id=token("pad_token_id"),
        dtype=str(c.get("dtype") or c.get("torch_dtype") or "float32"),
    )


def _count(config: dict[str, Any], key: str, default: int | None = None) -> int:
    """The value of a key, a whole number of 1 or more; the default where the key is missing."""
    value = default if config.get(key) is None else config[key]
    if value is None:
        raise ValueError(f"config.json has no {key!r}.")
    if type(value) is not int or value < 1:
        raise ValueError(f"config.json has {key} = {value!r}; it must be a whole number of 1 or more.")
    return value


def _switch(config: dict[str, Any], key: str) -> bool:
    value = config.get(key)
    if not isinstance(value, bool | None):
        raise ValueError(f"config.json has {key} = {value!r}; it must be true or false.")
    return bool(value)


def _positive(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"config.json has {name} = {value!r}; it must be a number above 0.")
    return float(value)


def _ids(*named: int | list[int] | None) -> tuple[int, ...]:
    """All ids that are named, each once."""
    found: dict[int, None] = {}
    for choice in named:
        ids = choice if isinstance(choice, list | tuple) else () if choice is None else (choice,)
        if not all(type(i) is int and i >= 0 for i in ids):
            raise ValueError(f"eos_token_id = {choice!r}; it must be a token's number, 0 or more, or a list of them.")
        found |= dict.fromkeys(ids)
    return tuple(found)


def _known_family(raw: dict[str, Any]) -> str:
    """The model_type. Raises ValueError for an unknown one, and for a switch that the decoder does not support."""
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in ARCHITECTURES:
        raise ValueError(f"Unknown model_type {family!r}; the decoder does {', '.join(ARCHITECTURES)}.")
    named = raw.get("architectures") or [ARCHITECTURES[family]]
    if named != [ARCHITECTURES[family]]:
        raise ValueError(f"Unknown architecture {named} of model_type {family!r}; it does {ARCHITECTURES[family]!r}.")
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(raw.get(key), dict | None):
            raise ValueError(f"config.json has {key} = {raw[key]!r}; it must be an object or null.")
    rope = (raw.get("rope_scaling") or {}) | (raw.get("rope_parameters") or {})
    partial = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    refused = {
        "hidden_act": raw.get("hidden_act", "silu") != "silu",
        "attention_dropout": (raw.get("attention_dropout") or 0) > 0,
        "partial_rotary_factor": partial not in (None, 1),
        "quantization_config": raw.get("quantization_config") is not None,
    }
    for key, is_set in refused.items():
        if is_set:
            value = partial if key == "partial_rotary_factor" else raw[key]
            raise ValueError(f"config.json has {key} = {value!r}, which the decoder does not do.")
    _refuse_sliding_window(raw)
    return family


def _refuse_sliding_window(raw: dict[str, Any]) -> None:
    """Raises ValueError for a sliding window that is in use.

    Qwen's configs have a window that is only in use with `use_sliding_window`, above layer `max_window_layers`.
    """
    other = sorted(set(raw.get("layer_types") or ()) - {"full_attention"})
    if other:
        raise ValueError(f"config.json has layer_types {other}; the decoder does 'full_attention' only.")
    in_use = raw.get("use_sliding_window") and raw.get("sliding_window", 4096) is not None
    in_use = in_use and raw.get("max_window_layers", 28) < _count(raw, "num_hidden_layers")
    if in_use and raw.get("layer_types") is None:
        raise ValueError(
            f"config.json has sliding_window = {raw.get('sliding_window', 4096)} in use (use_sliding_window = true), "
            f"which the decoder does not do."
        )


def _rope(c: dict[str, Any]) -> tuple[float, Llama3Rope | LinearRope | None]:
    """Rotary base and scaling from `rope_theta` + `rope_scaling`, or from transformers 5's `rope_parameters`."""
    blocks = [c[key] for key in ("rope_scaling", "rope_parameters") if c.get(key)]
    found = [_rope_block(block, c) for block in blocks or [{}]]
    if found[0] != found[-1]:
        raise ValueError(f"config.json's rope_scaling and rope_parameters contradict each other: {found}.")
    return found[0]


def _rope_block(block: dict[str, Any], c: dict[str, Any]) -> tuple[float, Llama3Rope | LinearRope | None]:
    kind = block.get("rope_type", block.get("type", "default"))
    theta = next((t for t in (block.get("rope_theta"), c.get("rope_theta")) if t is not None), 10000.0)
    theta = _positive("rope_theta", theta)
    defaults = {"original_max_position_embeddings": c["max_position_embeddings"]}
    keys = {"default": (), "linear": ("factor",), "llama3": LLAMA3_KEYS}.get(kind)
    nested = [key for key, value in block.items() if isinstance(value, dict)]
    if keys is None or nested:
        raise ValueError(f"Unknown rope type {nested or kind!r}; the decoder does 'default', 'linear' and 'llama3'.")
    missing = [key for key in keys if key not in defaults | block]
    if missing:
        raise ValueError(f"config.json's {kind} rope scaling has no {missing}.")
    values = [(defaults | block)[key] for key in keys]
    for key, value in zip(keys, values, strict=True):
        _positive(f"{kind} rope scaling with {key}", value)
    match kind:
        case "linear":
            return theta, LinearRope(*values)
        case "llama3":
            return theta, Llama3Rope(*values)
    return theta, None


def config_json(config: DecoderConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config.json, generation_config.json) that transformers 5 and 4 read as `config`, with rope in both spellings.

    Raises ValueError for a combination of switches that no config of this model_type expresses.
    """
    scaling: dict[str, Any]
    match config.rope_scaling:
        case None:
            scaling = {"rope_type": "default"}
        case LinearRope(factor):
            scaling = {"rope_type": "linear", "factor": factor}
        case Llama3Rope():
            scaling = {"rope_type": "llama3"} | {key: getattr(config.rope_scaling, key) for key in LLAMA3_KEYS}
    eos = config.eos_token_ids[0] if len(config.eos_token_ids) == 1 else list(config.eos_token_ids) or None
    tokens = {"bos_token_id": config.bos_token_id, "eos_token_id": eos, "pad_token_id": config.pad_token_id}
    raw = tokens | {
        "architectures": [ARCHITECTURES.get(config.model_type)],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling is None else scaling,
        "rope_parameters": scaling | {"rope_theta": config.rope_theta},
        "attention_bias": config.qkv_bias,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": config.dtype,
        "torch_dtype": config.dtype,
    }
    if config.model_type == "llama":
        raw["mlp_bias"] = config.mlp_bias
    else:
        raw |= {"use_sliding_window": False, "sliding_window": None}
    generation = {key: value for key, value in tokens.items() if value is not None}
    if parse_config(raw, generation) != config:
        raise ValueError(
            f"A {config.model_type} checkpoint cannot express this combination of qk_norm = {config.qk_norm}, qkv_bias "
            f"= {config.qkv_bias}, output_bias = {config.output_bias} and mlp_bias = {config.mlp_bias}."
        )
    return raw, generation
