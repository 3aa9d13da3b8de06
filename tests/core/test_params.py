"""Trainable and frozen parameters: split, merged, trained, and kept."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
import toy

import prerl_jax as pj

MODEL = toy.Toy()
PHASE = pj.grpo(steps=1)[0]


def layers_alone(path):
    return path.startswith("layers.")


def test_split_and_merge_are_inverse():
    tree = {"a": {"x": jnp.arange(2.0), "y": {"z": jnp.ones(3)}}, "b": jnp.zeros(1)}
    seen = []
    trainable, frozen = pj.split_params(tree, lambda path: seen.append(path) or path == "a.y.z")
    assert sorted(seen) == ["a.x", "a.y.z", "b"]
    assert list(trainable) == ["a"]
    assert list(trainable["a"]) == ["y"]
    assert set(frozen) == {"a", "b"}
    toy.assert_same_bits(pj.merge_params(trainable, frozen), tree)


def test_nothing_frozen_is_none():
    params = MODEL.init()
    trainable, frozen = pj.split_params(params, lambda path: True)
    assert frozen is None
    assert pj.merge_params(trainable, None) is trainable
    toy.assert_same_bits(trainable, params)


def test_what_cannot_be_split_or_merged_is_refused():
    with pytest.raises(ValueError, match="at least one leaf"):
        pj.split_params(MODEL.init(), lambda path: False)
    with pytest.raises(ValueError, match=r"'a\.b' is both trainable and frozen"):
        pj.merge_params({"a": {"b": 1}}, {"a": {"b": 2}})


def batch():
    made = pj.make_prepare(PHASE, 4)(toy.rollouts())
    return dataclasses.replace(made, sampler_logprobs=None)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_frozen_leaf_keeps_its_bits_and_has_no_moments(microbatches):
    """The others move as they do when all are trained, as long as nothing is clipped."""
    tx, params = pj.adamw(1e-2, max_grad_norm=None), MODEL.init()
    trainable, frozen = pj.split_params(params, layers_alone)
    step = jax.jit(pj.make_train_step(MODEL, tx, PHASE.objective, microbatches=microbatches))
    state = pj.init_state(trainable, tx, jax.random.key(0), frozen)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert [leaf.shape for leaf in moments] == [params["layers"]["mix"].shape] * 2
    after, metrics = step(state, batch())
    toy.assert_same_bits(after.frozen, frozen)
    assert list(after.params) == ["layers"]
    whole, _ = step(pj.init_state(params, tx, jax.random.key(0)), batch())
    toy.assert_close(after.params, {"layers": whole.params["layers"]})
    assert (after.params["layers"]["mix"] != params["layers"]["mix"]).any()
    assert metrics["train/skipped"] == 0


def test_the_gradient_norm_is_that_of_the_trainable_leaves():
    tx, params = pj.adamw(1e-2), MODEL.init()
    trainable, frozen = pj.split_params(params, layers_alone)
    _, metrics = jax.jit(pj.make_train_step(MODEL, tx, PHASE.objective))(
        pj.init_state(trainable, tx, jax.random.key(0), frozen), batch()
    )
    gradient = jax.jit(jax.grad(lambda p: pj.make_loss(MODEL, PHASE.objective)(p, batch())[0]))(params)
    norm = jnp.sqrt((gradient["layers"]["mix"] ** 2).sum())
    toy.assert_close(metrics["train/grad_norm"], norm)
