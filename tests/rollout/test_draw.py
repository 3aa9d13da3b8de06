"""Filtering and inverting a distribution: exact on grids written by hand, in frequency on random distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prerl_jax.rollout.draw import BLOCK, categorical, filter_logits

ONE = float(np.nextafter(np.float32(1), np.float32(0)))  # the largest uniform number
LOW = float(np.nextafter(np.float32(0), np.float32(1)))


def logits_of(mass, vocab=None):
    """Logits f32[V] of masses that are powers of two (exact) or 0; a dict gives the tokens that have any."""
    if isinstance(mass, dict):
        dense = np.zeros(vocab)
        dense[list(mass)] = list(mass.values())
        mass = dense
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(mass, np.float32))


FAR = {5: 1, 130: 2, 299: 1}
INVERSE = [
    # masses, vocabulary, uniform number, token
    *(([1, 2, 1], None, u, t) for u, t in [(0, 0), (0.24, 0), (0.26, 1), (0.74, 1), (0.76, 2), (ONE, 2)]),
    *(([0, 1, 0, 1, 0], None, u, t) for u, t in [(0, 1), (LOW, 1), (0.49, 1), (0.51, 3), (ONE, 3)]),
    *((FAR, 300, u, t) for u, t in [(0, 5), (0.24, 5), (0.26, 130), (0.74, 130), (0.76, 299), (ONE, 299)]),
    *((FAR, 1000, u, t) for u, t in [(0, 5), (ONE, 299)]),  # five blocks without any mass at the end
    *(({t: 1}, v, u, t) for t, v in [(0, 1), (127, 128), (128, 129), (200, 513), (512, 513)] for u in (0, 0.5, ONE)),
    *(({0: 1, 127: 1, 128: 1, 255: 1}, 256, u, t) for u, t in [(0.2, 0), (0.3, 127), (0.6, 128), (0.8, 255)]),
]


def test_the_inverse_of_the_cumulative_distribution():
    assert BLOCK == 128  # the grid goes over its edges
    vocab = max(v or len(m) for m, v, *_ in INVERSE)
    logits = [logits_of(mass, v) for mass, v, *_ in INVERSE]
    for rows in (logits, [x + 50 for x in logits]):  # a shift of logits changes nothing
        padded = np.stack([np.pad(x, (0, vocab - len(x)), constant_values=-np.inf) for x in rows])
        found = categorical(jnp.asarray(padded), jnp.asarray([u for *_, u, _ in INVERSE], jnp.float32))
        np.testing.assert_array_equal(found, [token for *_, token in INVERSE])
    assert found.dtype == jnp.int32


@pytest.mark.parametrize("vocab", [1, 3, 127, 128, 129, 300])
def test_the_last_token_can_be_drawn_whatever_the_vocabulary(vocab):
    found = categorical(jnp.zeros((2, vocab)), jnp.asarray([0.0, ONE]))
    np.testing.assert_array_equal(found, [0, vocab - 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("vocab", [3, 128, 300])
def test_no_logits_give_a_token_outside_of_the_vocabulary(bad, vocab):
    one = np.zeros((2, vocab), np.float32)
    one[:, 1] = bad
    for logits in (one, np.full_like(one, bad)):
        found = np.asarray(categorical(jnp.asarray(logits), jnp.asarray([0.0, ONE])))
        assert ((found >= 0) & (found < vocab)).all()


def test_an_edge_belongs_to_the_token_after_it():
    tokens = np.arange(256)
    found = categorical(jnp.zeros((256, 256)), jnp.asarray(tokens / 256, jnp.float32))
    np.testing.assert_array_equal(found, tokens)


def test_agrees_with_the_inverse_in_float64():
    rng = np.random.default_rng(0)
    logits, uniform = 3 * rng.normal(size=(500, 1000)).astype(np.float32), rng.random(500).astype(np.float32)
    mass = np.exp(logits.astype(np.float64))
    edges = np.cumsum(mass, axis=1) / mass.sum(axis=1, keepdims=True)
    found = categorical(jnp.asarray(logits), jnp.asarray(uniform))
    clear = np.abs(edges - uniform[:, None]).min(axis=1) > 1e-6
    assert clear.sum() > 490
    np.testing.assert_array_equal(found[clear], (edges <= uniform[:, None]).sum(axis=1)[clear])


def test_a_token_without_mass_is_never_drawn():
    """At uniform numbers right on, before and after every edge of the cumulative distribution."""
    rng = np.random.default_rng(1)
    logits = np.where(rng.random((40, 256)) < 0.5, -np.inf, rng.normal(size=(40, 256))).astype(np.float32)
    mass = np.exp(logits)
    edges = (np.cumsum(mass, axis=1) / mass.sum(axis=1, keepdims=True)).astype(np.float32)
    near = [np.nextafter(edges, np.float32(0)), edges, np.nextafter(edges, np.float32(2))]
    uniform = np.minimum(np.concatenate(near, axis=1), ONE)
    found = jax.jit(jax.vmap(lambda row, us: categorical(jnp.tile(row, (us.shape[0], 1)), us)))(logits, uniform)
    assert np.isfinite(np.take_along_axis(logits, np.asarray(found), axis=1)).all()


@pytest.mark.parametrize("vocab", [5, 300])
def test_frequencies_are_those_of_softmax(vocab):
    """Chi-square: its mean is the degrees of freedom k, its standard deviation sqrt(2 k)."""
    draws = 40_000
    logits = np.random.default_rng(2).normal(size=vocab).astype(np.float32)
    uniform = jax.random.uniform(jax.random.key(3), (draws,))
    counts = np.bincount(categorical(jnp.tile(logits, (draws, 1)), uniform), minlength=vocab)
    expected = draws * np.asarray(jax.nn.softmax(logits), np.float64)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - (vocab - 1)) < 4 * np.sqrt(2 * (vocab - 1))


ROW = np.log(np.asarray([0.1, 0.4, 0.2, 0.3], np.float32))
TIED = np.log(np.asarray([0.25, 0.125, 0.25, 0.125, 0.25], np.float32))
SUPPORTS = [
    # logits, top_k, top_p, what stays
    (ROW, None, None, {0, 1, 2, 3}),
    (ROW, 1, None, {1}),
    (ROW, 2, None, {1, 3}),
    (ROW, 3, None, {1, 2, 3}),
    (ROW, 4, None, {0, 1, 2, 3}),
    (ROW, 9, None, {0, 1, 2, 3}),
    (ROW, None, 0.01, {1}),
    (ROW, None, 0.39, {1}),
    (ROW, None, 0.41, {1, 3}),
    (ROW, None, 0.69, {1, 3}),
    (ROW, None, 0.71, {1, 2, 3}),
    (ROW, None, 0.89, {1, 2, 3}),
    (ROW, None, 0.91, {0, 1, 2, 3}),
    (ROW, None, 1.0, {0, 1, 2, 3}),
    (ROW, 2, 0.5, {1}),  # 0.4 of 0.7 is more than half
    (ROW, 2, 0.6, {1, 3}),
    (ROW, 3, 0.95, {1, 2, 3}),
    (ROW, 2, 1.0, {1, 3}),
    (TIED, 1, None, {0, 2, 4}),  # ties with the last one stay
    (TIED, None, 0.3, {0, 2, 4}),
    (TIED, 4, None, {0, 1, 2, 3, 4}),
]


@pytest.mark.parametrize(("logits", "top_k", "top_p", "support"), SUPPORTS)
def test_truncation(logits, top_k, top_p, support):
    both = jnp.asarray(np.stack([logits, np.roll(logits, 1)]))
    found = filter_logits(both, top_k, top_p)
    inside = np.isin(np.arange(len(logits)), list(support))
    np.testing.assert_array_equal(found, np.where([inside, np.roll(inside, 1)], both, -np.inf))


def test_a_top_p_of_1_keeps_every_token_of_a_large_vocabulary():
    """In float32 their cumulative sum reaches 1 before the last token."""
    logits = jnp.linspace(0, 20, 150_000)[None]
    np.testing.assert_array_equal(filter_logits(logits, None, 1.0), logits)
