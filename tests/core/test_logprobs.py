"""Chunked log-probabilities and entropies against explicit ones, and what is never held in memory."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prerl_jax as pj
from prerl_jax.core.logprobs import LOGITS_BUDGET, chunk_length

B, T, D, V = 2, 8, 4, 13
RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.normal(size=(B, T, D)), jnp.float32)
UNEMBEDDING = jnp.asarray(RNG.normal(size=(D, V)), jnp.float32)
HEAD = pj.Head(UNEMBEDDING)
TOKENS = jnp.asarray(RNG.integers(0, V, (B, T)))
WEIGHTS = jnp.asarray(RNG.normal(size=(2, B, T)), jnp.float32)


def explicit(hidden, unembedding, temperature):
    """The same from log_softmax of all logits."""
    table = jax.nn.log_softmax(hidden[:, :-1] @ unembedding / temperature)
    chosen = jnp.take_along_axis(table, TOKENS[:, 1:, None], axis=-1)[..., 0]
    entropy = -(jnp.exp(table) * table).sum(axis=-1)
    return tuple(jnp.pad(x, [(0, 0), (1, 0)]) for x in (chosen, entropy))


def weighed(function):
    """A number that depends on every log-probability and every entropy, with both as extras, and its gradient."""

    def total(hidden, unembedding):
        both = function(hidden, unembedding)
        return sum((w * x).sum() for w, x in zip(WEIGHTS, both, strict=True)), both

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(HIDDEN, UNEMBEDDING)


@functools.cache
def expected(temperature):
    return weighed(functools.partial(explicit, temperature=temperature))


@pytest.mark.parametrize(("chunk", "temperature"), [(1, 0.7), (3, 1.5), (4, 0.7), (7, 1.5), (None, 1.5)])
def test_values_and_gradients(chunk, temperature):
    """7 tokens are predicted: chunks of 1 and 7 divide them, of 3 and 4 do not."""

    def chunked(hidden, unembedding):
        return pj.token_logprobs(hidden, pj.Head(unembedding), TOKENS, temperature=temperature, chunk=chunk)

    for found, wanted in zip(*map(jax.tree.leaves, (weighed(chunked), expected(temperature))), strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_the_first_token_has_neither_logprob_nor_entropy():
    for x in pj.token_logprobs(HIDDEN, HEAD, TOKENS):
        np.testing.assert_array_equal(x[:, 0], [0, 0])
        assert (x[:, 1:] != 0).all()
    for x in pj.token_logprobs(HIDDEN[:, :1], HEAD, TOKENS[:, :1]):
        np.testing.assert_array_equal(x, [[0], [0]])


def test_logits_are_float32_whatever_the_model_computes_in():
    half = HIDDEN.astype(jnp.bfloat16), UNEMBEDDING.astype(jnp.bfloat16)
    found = pj.token_logprobs(half[0], pj.Head(half[1]), TOKENS)
    wanted = explicit(*(x.astype(jnp.float32) for x in half), 1.0)
    assert [x.dtype for x in found] == [jnp.float32] * 2
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("rows", "length", "vocab", "shards", "expected"),
    [
        (4, 16, 100, 1, 16),  # all of it fits
        (64, 4096, 1 << 17, 1, 6),  # 200 * 2^18 / 2^23
        (64, 4096, 1 << 17, 8, 50),
        (1024, 4096, 1 << 17, 1, 1),  # not even one token fits: one at a time
        (0, 16, 100, 1, 16),
    ],
)
def test_chunk_length(rows, length, vocab, shards, expected):
    found = chunk_length(rows, length, vocab, shards)
    assert found == expected
    assert found == 1 or rows * found * vocab <= LOGITS_BUDGET * shards


def largest_buffer(chunk, vocab):
    """Elements of the largest array with a vocabulary axis in the compiled loss and gradient over 33 tokens."""

    def total(hidden, unembedding, tokens):
        logprobs, entropy = pj.token_logprobs(hidden, pj.Head(unembedding), tokens, chunk=chunk)
        return (logprobs + entropy).sum()

    shapes = [((B, 33, D), jnp.float32), ((D, vocab), jnp.float32), ((B, 33), jnp.int32)]
    text = (
        jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
        .lower(*(jax.ShapeDtypeStruct(*s) for s in shapes))
        .compile()
        .as_text()
    )
    shapes = {tuple(map(int, s.split(","))) for s in re.findall(r"(?:f32|s32|pred)\[([\d,]+)\]", text)}
    return max(math.prod(s) for s in shapes if math.prod(s) % vocab == 0)


def test_no_array_of_all_logits_is_ever_held():
    vocab = 101
    assert largest_buffer(None, vocab) >= B * 32 * vocab  # small enough to be done at once: the test can tell
    assert largest_buffer(4, vocab) <= B * 4 * vocab
