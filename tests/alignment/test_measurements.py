"""Measurements of both spaces in one go and in parts are those of the functions that they are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.alignment.buckets import Buckets, token_alignment_metrics
from prerl_jax.alignment.measurements import make_probability_statistics, make_space_measurements
from prerl_jax.alignment.tokens import make_token_alignment

MODEL = toy.Toy()
PARAMS, ROLLOUTS = MODEL.init(), toy.rollouts(seed=3)
PRE, POST, STOPS, TEMPERATURE = pj.PreTrainSpace(0), pj.PostTrainSpace(), (2, 5), 0.7
BUCKETS = Buckets(probability=(0.05, 0.1, 0.2), position=(1, 2))


def separately(pre):
    alignment = jax.jit(make_token_alignment(MODEL, pre, POST, TEMPERATURE))(PARAMS, ROLLOUTS)
    statistics = make_probability_statistics(MODEL, {"pre": pre, "post": POST}, STOPS, temperature=TEMPERATURE)
    found = {f"alignment/{name}": value for name, value in jax.jit(statistics)(PARAMS, ROLLOUTS).items()}
    return found | token_alignment_metrics(alignment, BUCKETS)


@pytest.mark.parametrize(("prefix", "chunk", "microbatches"), [(0, None, 1), (None, 2, 1), (0, 2, 2), (None, None, 4)])
def test_equal_the_functions_they_are_made_of(prefix, chunk, microbatches):
    how = {"buckets": BUCKETS, "temperature": TEMPERATURE, "chunk": chunk, "microbatches": microbatches}
    pre = pj.PreTrainSpace(prefix)
    found = jax.jit(make_space_measurements(MODEL, pre, POST, STOPS, **how))(PARAMS, ROLLOUTS)
    wanted = separately(pre)
    assert set(found) == set(wanted)
    assert {"alignment/token", "alignment/token/position_1", "alignment/pre/eos", "alignment/post/top3"} <= set(found)
    for name, value in wanted.items():
        assert found[name].shape == ()
        np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)


def test_rows_that_do_not_divide_are_refused():
    rows = ROLLOUTS.response.shape[0]
    with pytest.raises(ValueError, match=f"{rows} rows do not divide into 5 microbatches"):
        jax.eval_shape(make_space_measurements(MODEL, PRE, POST, microbatches=5), PARAMS, ROLLOUTS)


def test_nothing_sampled_is_nan_not_an_error():
    empty = jax.tree.map(jnp.zeros_like, ROLLOUTS)
    found = jax.jit(make_space_measurements(MODEL, PRE, POST, STOPS))(PARAMS, empty)
    assert all(np.isnan(value) for value in found.values())
