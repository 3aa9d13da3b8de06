"""Learning rates over a phase, against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prerl_jax import Cosine, Linear, Phase, Warmup, adamw


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Linear(1.0, 0.0, 4), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        (Linear(0.0, 2.0, 2), [0.0, 1.0, 2.0, 2.0, 2.0, 2.0]),
        (Cosine(1.0, 0.0, 4), [1.0, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2, 0.0, 0.0]),
        (Cosine(3.0, 1.0, 2), [3.0, 2.0, 1.0, 1.0, 1.0, 1.0]),
        (Warmup(3, 4.0), [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]),
        (Warmup(1, Linear(1.0, 0.0, 4)), [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]),
    ],
)
def test_by_hand(schedule, expected):
    steps = jnp.arange(6, dtype=jnp.int32)
    np.testing.assert_allclose(jax.vmap(schedule)(steps), expected, atol=1e-6)
    hash(schedule)  # a phase with it is the key of its compiled step


@pytest.mark.parametrize("build", [lambda: Linear(1.0, 0.0, 0), lambda: Cosine(-1.0, 0.0, 2), lambda: Warmup(0, 1.0)])
def test_refused(build):
    with pytest.raises(ValueError, match=r"needs 1 step or more, and rates that are 0 or more and finite"):
        build()


def test_the_optimizer_follows_the_steps_of_the_phase():
    tx, params = adamw(Phase("p", 8, learning_rate=Linear(1.0, 0.0, 4)).learning_rate, weight_decay=0.0), jnp.ones(2)
    gradients, state = jnp.ones(2), tx.init(jnp.ones(2))
    updates = [tx.update(gradients, state, params, phase_step=jnp.int32(n))[0][0] for n in (0, 2, 4)]
    np.testing.assert_allclose(updates, [-1.0, -0.5, 0.0], rtol=1e-5)
