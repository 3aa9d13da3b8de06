"""Logits of transformers (PyTorch, float32) on tiny random checkpoints, and the way back, bit for bit."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from prerl_jax.models.hf import load_model, save_hf

pytestmark = pytest.mark.slow

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES = {
    "llama": ("LlamaConfig", {}),
    "llama-biases": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-2}),
    "llama-llama3": ("LlamaConfig", {"rope_parameters": LLAMA3 | {"rope_theta": 500.0}, "tie_word_embeddings": True}),
    "llama-linear": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 300.0}}),
    "llama-head_dim": ("LlamaConfig", {"head_dim": 12, "num_key_value_heads": None}),
    "qwen2": ("Qwen2Config", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2-tied-head_dim": ("Qwen2Config", {"tie_word_embeddings": True, "head_dim": 16, "rms_norm_eps": 1e-3}),
    "qwen3": ("Qwen3Config", {"head_dim": 16, "num_key_value_heads": 1}),
    "qwen3-tied-bias": ("Qwen3Config", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
}


@pytest.fixture(scope="module")
def torch():
    """PyTorch. It takes seconds to import, so no module imports it while tests are collected."""
    pytest.importorskip("accelerate")
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def transformers(torch):
    return pytest.importorskip("transformers")


@pytest.fixture
def make(torch, transformers):
    return functools.partial(make_checkpoint, torch, transformers)


def make_checkpoint(torch, transformers, folder, case, dtype="float32"):
    """Writes a random checkpoint with transformers, every parameter far from its initial value."""
    kind, switches = CASES[case]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**SHAPE | switches)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return model


def logits_of(model, params, tokens):
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return model.head(params).logits(model.hidden(params, tokens, positions, np.ones_like(tokens)))


def tensors_of(folder):
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_same_tensors(folder, other):
    ours, theirs = tensors_of(folder), tensors_of(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].tobytes() == theirs[name].tobytes(), name


@pytest.mark.parametrize("case", CASES)
def test_logits_and_round_trip(torch, transformers, make, case, tmp_path):
    theirs = make(tmp_path / "theirs", case)
    tokens = np.random.default_rng(1).integers(0, SHAPE["vocab_size"], (2, 40)).astype(np.int32)
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens, dtype=torch.long)).logits
    model, params = load_model(tmp_path / "theirs")
    difference = np.abs(logits_of(model, params, tokens) - expected.numpy()).max()
    assert difference <= 2e-4, difference
    assert float(expected.std()) > 0.1

    save_hf(tmp_path / "ours", model, params)
    assert_same_tensors(tmp_path / "ours", tmp_path / "theirs")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager")
    with torch.no_grad():
        assert torch.equal(again(torch.tensor(tokens, dtype=torch.long)).logits, expected)
    assert load_model(tmp_path / "ours")[0].config == model.config


@pytest.mark.parametrize("case", ["llama-llama3", "llama-linear", "qwen2"])
def test_rope_in_the_spelling_of_transformers_4(make, case, tmp_path):
    make(tmp_path, case)
    expected = load_model(tmp_path)[0].config
    raw = json.loads((tmp_path / "config.json").read_text())
    scaling = raw.pop("rope_parameters")
    raw["rope_theta"] = scaling.pop("rope_theta")
    raw["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
    raw["torch_dtype"] = raw.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert load_model(tmp_path)[0].config == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_round_trip(torch, transformers, make, dtype, tmp_path):
    make(tmp_path / "theirs", "qwen3", dtype)
    model, params = load_model(tmp_path / "theirs")
    assert params["embed"].dtype == jnp.float32
    save_hf(tmp_path / "ours", model, params)
    assert_same_tensors(tmp_path / "ours", tmp_path / "theirs")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").dtype
    assert found == getattr(torch, dtype)
