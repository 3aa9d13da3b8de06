"""Token layouts of both spaces, on hand-written grids."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.spaces import response_part

X = 99  # whatever stands under padding
T, F = True, False
ROLLOUTS = pj.Rollouts(
    prompt=jnp.asarray([[X, 7, 8], [4, 5, 6], [X, X, X], [X, X, 9]]),
    prompt_mask=jnp.asarray([[F, T, T], [T, T, T], [F, F, F], [F, F, T]]),
    response=jnp.asarray([[1, 2, X], [3, 1, 3], [1, 3, 2], [X, X, X]]),  # 2 is EOS: row 1 is truncated, row 3 is empty
    response_mask=jnp.asarray([[T, T, F], [T, T, T], [T, T, T], [F, F, F]]),
    rewards=jnp.zeros(4),
    logprobs=jnp.zeros((4, 3)),
)
GRIDS = {
    "post": (
        pj.PostTrainSpace(),
        [[0, 7, 8, 1, 2, 0], [4, 5, 6, 3, 1, 3], [0, 0, 0, 1, 3, 2], [0, 0, 9, 0, 0, 0]],
        [[0, 0, 1, 2, 3, 0], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 0, 0]],
        [[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 0]],
        # without a prompt nothing predicts the first token of row 2
        [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]],
    ),
    "pre": (
        pj.PreTrainSpace(prefix=12),
        [[12, 1, 2, 0], [12, 3, 1, 3], [12, 1, 3, 2], [12, 0, 0, 0]],
        [[0, 1, 2, 0], [0, 1, 2, 3], [0, 1, 2, 3], [0, 0, 0, 0]],
        [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]],
        [[0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]],
    ),
    "pre, prefix 0": (
        pj.PreTrainSpace(prefix=0),
        [[0, 1, 2, 0], [0, 3, 1, 3], [0, 1, 3, 2], [0, 0, 0, 0]],
        [[0, 1, 2, 0], [0, 1, 2, 3], [0, 1, 2, 3], [0, 0, 0, 0]],
        [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]],
        [[0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]],
    ),
    "pre, no prefix": (
        pj.PreTrainSpace(prefix=None),
        [[1, 2, 0], [3, 1, 3], [1, 3, 2], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 2], [0, 1, 2], [0, 0, 0]],
        [[1, 1, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 1], [0, 1, 1], [0, 0, 0]],
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_grid(name):
    space, *grids = GRIDS[name]
    found = space(ROLLOUTS)
    for value, expected in zip((found.tokens, found.positions, found.segments, found.mask), grids, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert [a.dtype for a in jax.tree.leaves(found)] == [jnp.int32, jnp.int32, jnp.int32, jnp.bool_]


LOSS_MASK = jnp.asarray([[F, T, T], [T, F, T], [T, T, F], [T, T, T]])
LOSS_GRIDS = {  # the mask of GRIDS, less the tokens that are read but not trained on
    "post": [[0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]],
    "pre": [[0, 0, 1, 0], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]],
    "pre, prefix 0": [[0, 0, 1, 0], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]],
    "pre, no prefix": [[0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]],
}


@pytest.mark.parametrize("name", GRIDS)
def test_tokens_outside_the_loss_mask_stay_in_the_row_and_are_not_trained_on(name):
    space, *grids, _ = GRIDS[name]
    found = space(dataclasses.replace(ROLLOUTS, loss_mask=LOSS_MASK))
    expected = (*grids, LOSS_GRIDS[name])
    for value, grid in zip((found.tokens, found.positions, found.segments, found.mask), expected, strict=True):
        np.testing.assert_array_equal(value, grid)


def test_prompt_dropout_keeps_the_loss_mask():
    masked, key = dataclasses.replace(ROLLOUTS, loss_mask=LOSS_MASK), jax.random.key(0)
    for share, name in ((0.0, "post"), (1.0, "pre")):
        width = len(LOSS_GRIDS[name][0])
        found = pj.PromptDropout(share, 12)(masked, key=key).mask[:, -width:]
        np.testing.assert_array_equal(found, LOSS_GRIDS[name])


@pytest.mark.parametrize("name", GRIDS)
def test_spaces_trace_and_keep_the_order_of_rows(name):
    space = GRIDS[name][0]
    order = jnp.asarray([2, 0, 3, 1])
    expected = jax.tree.map(lambda a: a[order], space(ROLLOUTS))
    toy.assert_same_bits(jax.jit(space)(jax.tree.map(lambda a: a[order], ROLLOUTS)), expected)


def test_a_prefix_below_0_is_refused():
    with pytest.raises(ValueError, match=r"PreTrainSpace\.prefix is -1; a token id is 0 or more"):
        pj.PreTrainSpace(-1)
    with pytest.raises(ValueError, match=r"PromptDropout\.prefix is -2"):
        pj.PromptDropout(0.5, -2)


@pytest.mark.parametrize("prefix", ["auto", "<s>"])
def test_a_prefix_without_an_id_is_refused(prefix):
    with pytest.raises(ValueError, match=r"no token id yet.*resolve_prefix"):
        pj.PreTrainSpace(prefix)(ROLLOUTS)


def test_values_of_the_response_are_laid_under_its_scored_tokens():
    values = jnp.asarray([[1.0, 2.0, jnp.nan], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [jnp.nan] * 3])
    expected = {
        "post": [[0, 0, 0, 1, 2, 0], [0, 0, 0, 3, 4, 5], [0, 0, 0, 0, 7, 8], [0] * 6],
        "pre": [[0, 1, 2, 0], [0, 3, 4, 5], [0, 6, 7, 8], [0] * 4],
        "pre, no prefix": [[0, 2, 0], [0, 4, 5], [0, 7, 8], [0] * 3],
    }
    for name, grid in expected.items():
        np.testing.assert_array_equal(response_part(GRIDS[name][0](ROLLOUTS), ROLLOUTS, values), grid)


@pytest.mark.parametrize("prefix", [12, None])
def test_log_p_of_y_does_not_change_when_prompts_change(prefix):
    model = toy.Toy()
    params, here = model.init(), toy.rollouts()
    other = toy.rollouts(prompt=6, seed=1)
    there = dataclasses.replace(here, prompt=other.prompt, prompt_mask=other.prompt_mask)
    score = jax.jit(pj.make_score(model))
    pre, post = pj.PreTrainSpace(prefix), pj.PostTrainSpace()
    toy.assert_same_bits(pre(here), pre(there))
    toy.assert_same_bits(score(params, pre(here)), score(params, pre(there)))
    ours, theirs = (score(params, post(r))[:, -5:] for r in (here, there))
    assert (jnp.abs(ours - theirs) > 1e-3)[here.response_mask].all()  # while log P(y|x) does


@pytest.mark.parametrize("prefix", [12, 0, None])
def test_prompt_dropout_is_a_choice_by_row(prefix):
    key = jax.random.key(3)
    dropped = np.asarray(jax.random.uniform(key, (4, 1)) < 0.5)[:, 0]
    assert 0 < dropped.sum() < 4
    found = pj.PromptDropout(0.5, prefix)(ROLLOUTS, key=key)
    whole, alone = pj.PostTrainSpace()(ROLLOUTS), pj.PreTrainSpace(prefix)(ROLLOUTS)
    for field in ("tokens", "positions", "segments", "mask"):
        bare = getattr(alone, field)
        bare = jnp.pad(bare, [(0, 0), (6 - bare.shape[1], 0)])
        expected = np.where(dropped[:, None], bare, getattr(whole, field))
        np.testing.assert_array_equal(getattr(found, field), expected, err_msg=field)


def test_which_prompts_are_dropped_depends_on_the_key_alone():
    rollouts = toy.rollouts(prompts=100, group_size=8)
    space = pj.PromptDropout(0.25, 0)
    first, again, other = (space(rollouts, key=jax.random.key(k)) for k in (0, 0, 1))
    toy.assert_same_bits(first, again)
    assert (first.tokens != other.tokens).any()
    jitted = jax.jit(lambda key: space(rollouts, key=key))(jax.random.key(0))
    toy.assert_same_bits(jitted, first)


def test_prompt_dropout_without_a_prompt_has_room_for_the_prefix():
    bare = dataclasses.replace(ROLLOUTS, prompt=ROLLOUTS.prompt[:, :0], prompt_mask=ROLLOUTS.prompt_mask[:, :0])
    found = pj.PromptDropout(1.0, 12)(bare, key=jax.random.key(0))
    toy.assert_same_bits(found, pj.PreTrainSpace(12)(ROLLOUTS))


def test_prompt_dropout_refuses_what_is_no_probability_and_a_prefix_without_an_id():
    with pytest.raises(ValueError, match=r"PromptDropout.share is 1.5; a probability"):
        pj.PromptDropout(1.5)
    with pytest.raises(ValueError, match=r"PromptDropout\(prefix='auto'\) has no token id yet"):
        pj.PromptDropout(0.5)(ROLLOUTS, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"draws at random: pass prepare\(..., key=k\)"):
        pj.PromptDropout(0.5, 0)(ROLLOUTS)
