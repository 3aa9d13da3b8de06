"""A head with a scale, a soft cap and padding ids, against plain differentiation of all logits, in every place that
turns hidden states into logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.alignment.measurements import token_statistics
from prerl_jax.alignment.tokens import compare_tokens
from prerl_jax.core.fused import fused_loss
from prerl_jax.rollout.draw import make_draw

B, T, D, V, VALID = 3, 8, 6, 16, 11
RNG = np.random.default_rng(0)
HIDDEN, MATRIX = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((B, T, D), (D, V)))
TOKENS = jnp.asarray(RNG.integers(0, VALID, (B, T)), jnp.int32)
WEIGHTS = jnp.asarray(RNG.normal(size=(2, B, T)), jnp.float32)
TEMPERATURE = 0.7
FIELDS = {
    "scale": {"scale": 0.4},
    "soft cap": {"soft_cap": 2.0},
    "padding ids": {"valid_ids": VALID},
    "all of them": {"scale": 1.7, "soft_cap": 3.0, "valid_ids": VALID},
}


def table(hidden, matrix, scale=1.0, soft_cap=None, valid_ids=V):
    """Log-probabilities f32[..., V] of the real ids alone, the others left out of the softmax altogether."""
    z = scale * (hidden @ matrix)
    z = z if soft_cap is None else soft_cap * jnp.tanh(z / soft_cap)
    return jax.nn.log_softmax(z[..., :valid_ids] / TEMPERATURE)


def explicit(hidden, matrix, fields):
    """(log-probabilities, entropies) f32[B, T] of TOKENS."""
    logs = table(hidden[:, :-1], matrix, **fields)
    chosen = jnp.take_along_axis(logs, TOKENS[:, 1:, None], axis=-1)[..., 0]
    entropy = -(jnp.exp(logs) * logs).sum(axis=-1)
    return tuple(jnp.pad(x, [(0, 0), (1, 0)]) for x in (chosen, entropy))


def of_both(logprobs, entropy, data):
    return (data[0] * (logprobs**2 + 0.3 * entropy**3),), {"entropy": entropy}


def of_logprobs(logprobs, entropy, data):
    return (data[0] * logprobs**2 + data[1] * logprobs,), {"entropy": entropy}


def losses(fields):
    """name -> (loss as the package computes it, the same by plain differentiation), of (hidden, matrix)."""

    def fused(terms, entropy, chunk=3):
        def loss(hidden, matrix):
            settings = {"temperature": TEMPERATURE, "chunk": chunk, "entropy": entropy}
            loss, sums = fused_loss(terms, hidden, pj.Head(matrix, **fields), TOKENS, tuple(WEIGHTS), **settings)
            return loss, sums["entropy"]

        def plain(hidden, matrix):
            logprobs, entropies = explicit(hidden, matrix, fields)
            (per_token,), _ = terms(logprobs, entropies, tuple(WEIGHTS))
            return per_token.sum(), entropies.sum()

        return loss, plain

    def scored(hidden, matrix):
        head = pj.Head(matrix, **fields)
        logprobs, entropies = pj.token_logprobs(hidden, head, TOKENS, temperature=TEMPERATURE, chunk=3)
        return (WEIGHTS[0] * logprobs + WEIGHTS[1] * entropies).sum(), entropies.sum()

    def plain(hidden, matrix):
        logprobs, entropies = explicit(hidden, matrix, fields)
        return (WEIGHTS[0] * logprobs + WEIGHTS[1] * entropies).sum(), entropies.sum()

    return {"scores": (scored, plain), "fused": fused(of_logprobs, False), "fused, entropy": fused(of_both, True)}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_losses_and_their_gradients(fields):
    for name, (ours, plain) in losses(fields).items():
        found, wanted = (
            jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(HIDDEN, MATRIX) for f in (ours, plain)
        )
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5, err_msg=name)
        toy.assert_close(jax.jit(ours)(HIDDEN, MATRIX), wanted[0], rtol=2e-5, atol=2e-5)
        assert not fields.get("valid_ids") or not found[1][1][:, VALID:].any(), "padding columns have no gradient"


def test_the_gradient_of_the_gradient():
    for name, (ours, plain) in losses(FIELDS["all of them"]).items():

        def norm(f):
            return jax.jit(jax.grad(lambda m: (jax.grad(lambda h: f(h, m)[0])(HIDDEN) ** 2).sum()))(MATRIX)

        np.testing.assert_allclose(norm(ours), norm(plain), rtol=2e-3, atol=2e-3, err_msg=name)


def test_a_padding_id_has_probability_0_and_finite_gradients():
    """In a row that is scored all the same; its other tokens are as without it."""
    fields, tokens = FIELDS["all of them"], TOKENS.at[0, 3].set(VALID)

    def total(hidden, matrix):
        logprobs, entropy = pj.token_logprobs(hidden, pj.Head(matrix, **fields), tokens, temperature=TEMPERATURE)
        return (WEIGHTS[0] * logprobs + WEIGHTS[1] * entropy).sum(), (logprobs, entropy)

    def fused(hidden, matrix):
        head, data = pj.Head(matrix, **fields), tuple(WEIGHTS)
        return fused_loss(of_logprobs, hidden, head, tokens, data, temperature=TEMPERATURE)[0]

    gradient, (logprobs, entropy) = jax.jit(jax.grad(total, (0, 1), has_aux=True))(HIDDEN, MATRIX)
    assert logprobs[0, 3] == -jnp.inf
    others = jnp.ones((B, T), bool).at[0, 3].set(False)
    wanted = explicit(HIDDEN, MATRIX, fields)
    np.testing.assert_allclose(logprobs[others], wanted[0][others], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(entropy, wanted[1], rtol=1e-4, atol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    untrained = jax.jit(jax.grad(lambda h, m: fused(h, m), (0, 1)))
    assert all(np.isfinite(leaf[1:]).all() for leaf in untrained(HIDDEN, MATRIX)[:1])


@pytest.mark.parametrize("settings", [(None, None), (3, None), (V, None), (None, 0.9)])
def test_a_padding_id_is_never_drawn(settings):
    """Though its logit would be the largest, and whatever is cut off."""
    matrix = MATRIX.at[:, VALID:].set(0) + jnp.where(jnp.arange(V) < VALID, 0, 100.0)
    head, rows = pj.Head(matrix, valid_ids=VALID), 512
    keys = jax.random.split(jax.random.key(0), rows)
    hidden, index = jnp.abs(jnp.tile(HIDDEN[0, :1], (rows, 1))), jnp.zeros(rows, jnp.int32)
    token, logprob = jax.jit(make_draw(head, keys, TEMPERATURE, *settings))(hidden, index)
    assert token.max() < VALID
    np.testing.assert_allclose(logprob, table(hidden, matrix, valid_ids=VALID)[jnp.arange(rows), token], rtol=1e-4)
    likeliest, _ = jax.jit(make_draw(head, keys, None, None, None))(hidden, index)
    assert (likeliest == table(hidden, matrix, valid_ids=VALID).argmax(axis=-1)).all()


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_alignment_token_by_token(fields):
    pre, post = HIDDEN[:1], HIDDEN[1:2]
    targets = TOKENS[:1]
    found = jax.jit(lambda m: compare_tokens(pre, post, pj.Head(m, **fields), targets, TEMPERATURE))(MATRIX)

    def logprobs(matrix, hidden):
        return jnp.take_along_axis(table(hidden, matrix, **fields), targets[..., None], axis=-1)[0, :, 0]

    gradients = [np.asarray(jax.jacrev(logprobs)(MATRIX, h)).reshape(T, -1) for h in (pre, post)]
    inner, norms = (gradients[0] * gradients[1]).sum(-1), [np.linalg.norm(g, axis=-1) for g in gradients]
    wanted = {"inner": inner, "norm_pre": norms[0], "norm_post": norms[1], "cosine": inner / norms[0] / norms[1]}
    wanted["logprobs_pre"] = logprobs(MATRIX, pre)
    logs = table(pre, MATRIX, **fields)[0]
    wanted["entropy_pre"] = -(jnp.exp(logs) * logs).sum(axis=-1)
    for name, value in wanted.items():
        np.testing.assert_allclose(getattr(found, name)[0], value, rtol=1e-3, atol=1e-5, err_msg=name)
    measured = token_statistics(pre, pj.Head(MATRIX, **fields), targets, (1, 2), TEMPERATURE)
    np.testing.assert_allclose(measured["entropy"][0], wanted["entropy_pre"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(measured["eos"][0], jnp.exp(logs)[:, 1:3].sum(axis=-1), rtol=1e-4)
    np.testing.assert_allclose(measured["top1"][0], jnp.exp(logs).max(axis=-1), rtol=1e-4)


@pytest.mark.parametrize(("fields", "says"), [({"soft_cap": 0.0}, "above 0, got 0.0"), ({"valid_ids": 0}, "got 0")])
def test_fields_out_of_range_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        pj.Head(MATRIX, **fields)
