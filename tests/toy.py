"""A language model of a few operations that compiles in no time, and rollouts for it.

Every layer adds tanh(W mean of what its segment has said so far), and positions enter through a sine: it is causal,
knows segments and positions, and is all that the Model protocol asks for.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import prerl_jax as pj


@dataclasses.dataclass(frozen=True)
class Toy:
    """A user's own model: no base class, no registration."""

    vocab: int = 13
    width: int = 8
    layers: int = 2

    def init(self, seed: int = 0):
        draw = np.random.default_rng(seed).normal
        shapes = {"embed": (self.vocab, self.width), "unembed": (self.width, self.vocab)}
        params = {name: jnp.asarray(draw(size=shape), jnp.float32) for name, shape in shapes.items()}
        mix = jnp.asarray(draw(size=(self.layers, self.width, self.width)), jnp.float32)
        return params | {"layers": {"mix": mix}}

    def head(self, params):
        return pj.Head(params["unembed"])

    def hidden(self, params, tokens, positions, segments):
        return self._run(params, tokens, positions, segments)[0]

    def init_cache(self, params, tokens, positions, segments, group_size, length):
        x, sums = self._run(params, tokens, positions, segments)
        count = (segments > 0).sum(axis=1)
        return x[:, -1], tuple(jnp.repeat(a, group_size, axis=0) for a in (jnp.stack(sums, axis=1), count))

    def decode(self, params, cache, tokens, index):
        sums, before = cache
        position = before + index
        x = self._embed(params, tokens, position)
        new = []
        for layer, mix in enumerate(params["layers"]["mix"]):
            new.append(sums[:, layer] + x)
            x = x + jnp.tanh(new[-1] / (position + 1)[:, None] @ mix)
        return x, (jnp.stack(new, axis=1), before)

    def _embed(self, params, tokens, positions):
        return params["embed"][tokens] + jnp.sin(positions[..., None] * jnp.arange(1.0, self.width + 1))

    def _run(self, params, tokens, positions, segments):
        same = (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, :, None]
        same = jnp.tril(same).astype(jnp.float32)
        x, sums = self._embed(params, tokens, positions), []
        for mix in params["layers"]["mix"]:
            total = same @ x
            sums.append(total[:, -1])
            x = x + jnp.tanh(total / jnp.maximum(same.sum(axis=-1, keepdims=True), 1) @ mix)
        return x, sums


def rollouts(prompts: int = 2, group_size: int = 4, *, prompt=3, response=5, vocab=13, seed=0) -> pj.Rollouts:
    """Random rollouts: prompts and responses of 1 to `prompt` and `response` tokens, rewards that differ in a group.

    The sampler's log-probabilities are NaN: whatever reads them, where it must not, is noticed.
    """
    rng = np.random.default_rng(seed)
    rows = prompts * group_size
    prompt_mask = np.arange(prompt) >= prompt - rng.integers(1, prompt + 1, prompts)[:, None]
    response_mask = np.arange(response) < rng.integers(1, response + 1, rows)[:, None]
    prompt_tokens = np.where(prompt_mask, rng.integers(1, vocab, (prompts, prompt)), 0)
    rewards = np.tile((np.arange(group_size) % 3 == 0).astype(np.float32), prompts)
    return pj.Rollouts(
        prompt=jnp.asarray(np.repeat(prompt_tokens, group_size, axis=0), jnp.int32),
        prompt_mask=jnp.asarray(np.repeat(prompt_mask, group_size, axis=0)),
        response=jnp.asarray(np.where(response_mask, rng.integers(1, vocab, (rows, response)), 0), jnp.int32),
        response_mask=jnp.asarray(response_mask),
        rewards=jnp.asarray(rewards),
        logprobs=jnp.full((rows, response), jnp.nan, jnp.float32),
    )


def rewarded(rewards) -> pj.Rollouts:
    """Rollouts of one token with these rewards, f32[B]."""
    rewards = jnp.asarray(rewards, jnp.float32)
    ones = jnp.ones((len(rewards), 1), jnp.int32)
    return pj.Rollouts(ones, ones > 0, ones, ones > 0, rewards, jnp.zeros((len(rewards), 1)))


def random_params(model, seed: int = 0, scale: float = 0.2):
    """Parameters of a real decoder, norms and biases random as well, without compiling its `init`."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        centre = 1.0 if "norm" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(centre + scale * rng.normal(size=shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, model.abstract_params())


def to_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def assert_same_bits(a, b):
    """Both trees have the same structure, dtypes and bits (NaN equals NaN)."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    """Both trees have the same structure, and their leaves agree to rounding."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=atol)
