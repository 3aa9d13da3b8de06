"""A projection and its gradients, whichever way round its products are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prerl_jax.models.layers import project

RNG = np.random.default_rng(0)
SHAPES = {
    "wider": ((2, 3, 4), (4, 2, 5), 1),
    "narrower": ((2, 3, 4, 5), (4, 5, 2), 2),
    "no row but one": ((4,), (4, 3), 1),
}


def operands(shapes):
    x, weights, contracted = shapes
    return *(jnp.asarray(RNG.normal(size=s), jnp.float32) for s in (x, weights)), contracted


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_value_and_gradients_to_the_second(shapes):
    x, weights, contracted = operands(shapes)
    wanted = lambda x, w: jnp.tensordot(x, w, contracted)  # noqa: E731
    found = lambda x, w: project(x, w, contracted)  # noqa: E731

    def first(f):
        return jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), argnums=(0, 1))

    def second(f):
        return jax.grad(lambda x, w: sum((g**3).sum() for g in first(f)(x, w)), argnums=(0, 1))

    for of in (lambda f: f, first, second):
        toy.assert_close(jax.jit(of(found))(x, weights), of(wanted)(x, weights), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("platform", "turned"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_only_a_cpu_has_an_operand_transposed_beforehand(platform, turned):
    x, weights, _ = operands(SHAPES["wider"])
    gradient = jax.jit(jax.grad(lambda w: project(x, w).sum()))
    text = gradient.trace(weights).lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in text) == turned
