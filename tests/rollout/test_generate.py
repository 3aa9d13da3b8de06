"""Greedy sampling against transformers' generate, token for token: tiny random checkpoints, left-padded prompts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prerl_jax as pj
from prerl_jax.models.hf import load_model

pytestmark = pytest.mark.slow

TINY = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
CHECKPOINTS = {
    "qwen3": {"head_dim": 16, "rope_theta": 1e6, "tie_word_embeddings": True},
    "llama": {"rope_theta": 500.0, "tie_word_embeddings": False, "attention_bias": True},
}
NEW = 16


@pytest.fixture(scope="module")
def torch():
    """PyTorch. It takes seconds to import, so no module imports it while tests are collected."""
    return pytest.importorskip("torch")


def checkpoint(torch, kind):
    """A tiny random model of transformers."""
    import transformers

    config, model = {
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    }[kind]
    torch.manual_seed(0)
    return model(config(**TINY, **CHECKPOINTS[kind])).eval()


def generate(torch, model, tokens, mask, stop):
    """(tokens [B, NEW], mask) as generate has them, with 0 after the stop token."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor(tokens),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=list(stop) or None,
            pad_token_id=0,
        ).numpy()[:, tokens.shape[1] :]
    out = np.pad(out, [(0, 0), (0, NEW - out.shape[1])])
    ends = np.isin(out, stop)
    return out, np.cumsum(ends, axis=1) - ends == 0


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_greedy_sampling_is_generate(torch, kind, tmp_path):
    theirs = checkpoint(torch, kind)
    theirs.save_pretrained(tmp_path)
    model, params = load_model(tmp_path)
    rng = np.random.default_rng(0)
    mask = np.arange(7) >= 7 - np.asarray([7, 1, 4, 6, 2, 3])[:, None]
    tokens = np.where(mask, rng.integers(2, 40, mask.shape), 0)
    free, _ = generate(torch, theirs, tokens, mask, ())
    stop = tuple({int(free[0, 3]), int(free[2, 9])})  # some rows will say them
    expected, valid = generate(torch, theirs, tokens, mask, stop)
    assert len(np.unique(valid.sum(axis=1))) > 2
    sample = pj.make_sampler(model, pj.SamplerConfig(NEW, temperature=0.0, stop_tokens=stop), 2)
    found = sample(params, pj.Prompts(jnp.asarray(tokens), jnp.asarray(mask)), jax.random.key(0))
    np.testing.assert_array_equal(found.response, np.repeat(expected, 2, axis=0))
    np.testing.assert_array_equal(found.response_mask, np.repeat(valid, 2, axis=0))
