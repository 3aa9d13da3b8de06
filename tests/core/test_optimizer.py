"""AdamW: against one step by hand, against optax's, and a state that carries through any change of the rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import prerl_jax as pj

PARAMS = {"w": jnp.asarray([1.0, -2.0, 0.5]), "norm": jnp.asarray([1.0])}
GRADIENT = {"w": jnp.asarray([0.3, -0.4, 0.0]), "norm": jnp.asarray([1.2])}  # norm 1.3
SETTINGS = {"b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.1}


def run(tx, gradients, params=PARAMS, **extra):
    state = tx.init(params)
    for g in gradients:
        updates, state = tx.update(g, state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(("clip", "factor"), [(None, 1.0), (2.0, 1.0), (0.13, 0.1)])
def test_one_step_by_hand(clip, factor):
    """m / (1 - b1) and v / (1 - b2) are the gradient and its square at the first step."""
    found = run(pj.adamw(0.01, **SETTINGS, max_grad_norm=clip), [GRADIENT], phase_step=0)
    for name, p in PARAMS.items():
        g = factor * np.asarray(GRADIENT[name], np.float64)
        np.testing.assert_allclose(found[name], p - 0.01 * (g / (np.abs(g) + 1e-3) + 0.1 * p), rtol=1e-5)


def test_two_steps_by_hand():
    second = {"w": jnp.asarray([-0.1, 0.4, 0.2]), "norm": jnp.asarray([0.0])}
    found = run(pj.adamw(0.01, **SETTINGS, max_grad_norm=None), [GRADIENT, second], phase_step=0)
    for name, p in PARAMS.items():
        p, m, v = np.asarray(p, np.float64), 0.0, 0.0
        for t, gradient in enumerate((GRADIENT, second), 1):
            g = np.asarray(gradient[name], np.float64)
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
            step = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
            p = p - 0.01 * (step + 0.1 * p)
        np.testing.assert_allclose(found[name], p, rtol=1e-5)


def test_is_optax_adamw_after_clipping():
    gradients = [jax.tree.map(lambda g, k=k: g * k - 0.1, GRADIENT) for k in (1.0, -3.0, 0.2)]
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.02, **SETTINGS))
    toy.assert_close(run(pj.adamw(0.02, **SETTINGS), gradients, phase_step=7), run(theirs, gradients), rtol=1e-6)


def test_the_defaults_are_the_published_ones():
    """At a rate of 1, where the decay can be seen."""
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1.0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)
    )
    toy.assert_close(run(pj.adamw(1.0), [GRADIENT] * 2, phase_step=0), run(theirs, [GRADIENT] * 2), rtol=1e-6)


def test_every_parameter_is_decayed():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    found = run(pj.adamw(0.5, weight_decay=0.01), [zero], phase_step=0)
    toy.assert_close(found, jax.tree.map(lambda p: p * (1 - 0.5 * 0.01), PARAMS), rtol=1e-6)


def test_the_state_is_one_tree_whatever_the_rate_and_the_clip():
    optimizers = [
        pj.adamw(1e-3),
        pj.adamw(optax.linear_schedule(1e-3, 0, 9)),
        pj.adamw(lambda t: 1e-3, max_grad_norm=None),
    ]
    first, *others = (tx.init(PARAMS) for tx in optimizers)
    for other in others:
        toy.assert_same_bits(first, other)
    _, carried = optimizers[0].update(GRADIENT, first, PARAMS, phase_step=3)
    updates, _ = optimizers[1].update(GRADIENT, carried, PARAMS, phase_step=jnp.asarray(0))  # moments carry over
    plain, _ = optimizers[0].update(GRADIENT, carried, PARAMS, phase_step=4)
    toy.assert_close(updates, plain, rtol=1e-6)


def test_a_schedule_follows_the_steps_of_the_phase():
    tx = pj.adamw(lambda step: 0.1 / (1 + step))
    state = tx.init(PARAMS)
    first, _ = tx.update(GRADIENT, state, PARAMS, phase_step=jnp.asarray(0))
    fourth, _ = tx.update(GRADIENT, state, PARAMS, phase_step=jnp.asarray(3))
    toy.assert_close(fourth, jax.tree.map(lambda u: u / 4, first), rtol=1e-6)


def test_moments_in_bfloat16_are_updated_in_float32_and_only_stored_in_bfloat16():
    """So the first update is that of float32, to the bit."""
    wide, narrow = (pj.adamw(0.01, **SETTINGS, moments=moments) for moments in ("float32", "bfloat16"))
    toy.assert_same_bits(run(narrow, [GRADIENT], phase_step=0), run(wide, [GRADIENT], phase_step=0))
    stored = {str(leaf.dtype) for leaf in jax.tree.leaves(narrow.init(PARAMS)) if leaf.ndim}
    _, state = narrow.update(GRADIENT, narrow.init(PARAMS), PARAMS, phase_step=0)
    assert stored == {str(leaf.dtype) for leaf in jax.tree.leaves(state) if leaf.ndim} == {"bfloat16"}


def second_moments(levels, moments):
    """The mean of 4,096 second moments after gradients of about these sizes, one after the other, with b2 = 0.999."""
    tx = pj.adamw(1.0, moments=moments, max_grad_norm=None)

    def step(state, level):
        gradient = level * (1 + 0.01 * jnp.sin(jnp.arange(4096.0) + level))
        return tx.update(gradient, state, gradient, phase_step=0)[1], None

    state, _ = jax.lax.scan(step, tx.init(jnp.zeros(4096)), levels)
    return float(jnp.mean(state[1].nu.astype(jnp.float32)))


@pytest.mark.parametrize("last", [1.0, 0.1, 0.0])
def test_moments_in_bfloat16_rise_and_fall_as_in_float32(last):
    """A step of b2 = 0.999 moves them by less than half a unit in the last place: to the nearest they would stay."""
    levels = jnp.concatenate([1 + 0.1 * jnp.sin(jnp.arange(700.0)), last * jnp.ones(700)])
    assert second_moments(levels, "bfloat16") == pytest.approx(second_moments(levels, "float32"), rel=0.02)


def test_moments_in_bfloat16_are_a_function_of_the_inputs_and_keep_what_is_not_finite():
    tx = pj.adamw(0.1, moments="bfloat16", max_grad_norm=None)
    gradient = {"w": jnp.asarray([jnp.inf, jnp.nan, 3e38]), "norm": jnp.asarray([1.0])}
    first, again = (tx.update(gradient, tx.init(PARAMS), PARAMS, phase_step=0)[1][1].mu["w"] for _ in range(2))
    assert first.tobytes() == again.tobytes()
    np.testing.assert_allclose(first.astype(jnp.float32), [np.inf, np.nan, 3e37], rtol=0.01)


def test_other_moments_are_refused():
    with pytest.raises(ValueError, match=r"moments must be one of \('float32', 'bfloat16'\), got 'int8'"):
        pj.adamw(0.1, moments="int8")
