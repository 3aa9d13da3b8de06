"""Phases are data: the table of steps, the moves between phases, and the recipes' exact contents."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core.phases import locate

A, B, C = (pj.Phase(name, steps) for name, steps in (("a", 2), ("b", 1), ("c", 3)))


def state_at(phase=0, phase_step=0, step=0):
    return pj.TrainState(jnp.asarray(step), {}, (), jax.random.key(0), jnp.asarray(phase), jnp.asarray(phase_step))


@pytest.mark.parametrize(("step", "name"), list(enumerate("aabccc")))
def test_phase_at(step, name):
    assert pj.phase_at((A, B, C), step).name == name


@pytest.mark.parametrize("step", [-1, 6, 100])
def test_steps_outside_the_run_are_refused(step):
    with pytest.raises(ValueError, match=rf"Step {step} is outside the 6 steps of the phases \['a', 'b', 'c'\]"):
        pj.phase_at((A, B, C), step)


def walk(advance, ends=()):
    """(phase, phase_step) after each of eight train steps, ending a phase early at the steps of `ends`."""
    state, seen = state_at(), []
    for step in range(8):
        state = dataclasses.replace(state, step=state.step + 1, phase_step=state.phase_step + 1)
        state = advance((A, B, C), state, step in ends)
        seen.append((int(state.phase), int(state.phase_step)))
        assert int(state.step) == step + 1
    return seen


AFTER = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0)]  # (phase, steps done in it) after 0, 1, ... steps


@pytest.mark.parametrize(("step", "expected"), list(enumerate(AFTER)))
def test_locate(step, expected):
    assert locate((A, B, C), step) == expected


@pytest.mark.parametrize("step", [-1, 7])
def test_steps_after_the_end_have_no_place(step):
    with pytest.raises(ValueError, match=rf"Step {step} is outside the 6 steps"):
        locate((A, B, C), step)


EARLY = [(1, 0), (2, 0), (2, 1), (3, 0)]  # phases a and c end one and two steps early


@pytest.mark.parametrize("traced", [False, True])
def test_advance(traced):
    advance = jax.jit(pj.advance, static_argnums=0) if traced else pj.advance
    assert walk(advance)[:6] == AFTER[1:]
    assert walk(advance, ends=(0, 3))[:4] == EARLY
    assert [phase for phase, _ in walk(advance)[5:] + walk(advance, ends=(0, 3, 6))[3:]] == [3] * 8  # past the end


def rl(name, steps, keep, high):
    objective = pj.ClippedPG(low=0.2, high=high, dual=10.0)
    return pj.Phase(name, steps, pj.PostTrainSpace(), pj.GroupRelative(True, keep), objective, pj.TokenMean(1.0))


def pre(name, steps, keep, prefix):
    objective = pj.ClippedPG(low=0.2, high=0.2, dual=10.0)
    credit = pj.GroupRelative(normalize_std=False, keep=keep)
    return pj.Phase(name, steps, pj.PreTrainSpace(prefix), credit, objective, pj.TokenMean(0.01))


RECIPES = [
    (pj.grpo(steps=7), [rl("grpo", 7, "all", 0.28)]),
    (pj.nsr_rl(steps=7), [rl("nsr_rl", 7, "negative", 0.2)]),
    (pj.psr_rl(steps=7), [rl("psr_rl", 7, "positive", 0.2)]),
    (pj.prerl(steps=7), [pre("prerl", 7, "all", "auto")]),
    (pj.nsr_prerl(steps=7, prefix=3), [pre("nsr_prerl", 7, "negative", 3)]),
    (pj.psr_prerl(steps=7, prefix=None), [pre("psr_prerl", 7, "positive", None)]),
    (pj.dsrl(warmup=20, total=300), [pre("nsr_prerl", 20, "negative", "auto"), rl("rl", 280, "all", 0.2)]),
    (pj.dsrl(warmup=2, total=3, prefix=5), [pre("nsr_prerl", 2, "negative", 5), rl("rl", 1, "all", 0.2)]),
    (pj.dsrl(warmup=0, total=3), [rl("rl", 3, "all", 0.2)]),
    (pj.dsrl(warmup=3, total=3), [pre("nsr_prerl", 3, "negative", "auto")]),
]


@pytest.mark.parametrize(("phases", "expected"), RECIPES)
def test_recipes(phases, expected):
    assert phases == tuple(expected)
    for phase in phases:  # what the recipes leave alone: moments carried over, the run's rate, temperature 1, one term
        assert (phase.reset_optimizer, phase.learning_rate, phase.temperature, phase.terms) == (False, None, 1.0, ())
    assert eval(repr(phases), vars(pj)) == phases


@pytest.mark.parametrize("recipe", [pj.grpo, pj.nsr_rl, pj.psr_rl, pj.prerl, pj.nsr_prerl, pj.psr_prerl, pj.dsrl])
def test_recipes_take_keywords_alone(recipe):
    kinds = {p.kind for p in inspect.signature(recipe).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(("warmup", "total"), [(-1, 3), (4, 3), (0, 0)])
def test_dsrl_refuses_totals_that_do_not_hold_the_warm_up(warmup, total):
    with pytest.raises(ValueError, match=f"warmup={warmup}, total={total}"):
        pj.dsrl(warmup=warmup, total=total)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "'p' has 0 steps"), ({"temperature": 0.0}, "temperature 0.0"), ({"temperature": -1}, "positive")],
)
def test_phases_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pj.Phase("p", **{"steps": 1} | settings)


def gradient_of(phase, rollouts, model=toy.Toy()):  # noqa: B008
    batch = pj.make_prepare(model, phase, 4)(model.init(), rollouts)
    loss = pj.make_loss(model, phase.objective)
    (value, sums), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.init(), batch)
    return value, gradient, sums["tokens"]


def test_the_gradient_of_a_mixed_phase_is_the_sum_of_its_terms():
    rollouts = toy.rollouts()
    terms = (
        pj.Term(pj.PreTrainSpace(prefix=0), pj.GroupRelative(False, "negative"), pj.TokenMean(0.3)),
        pj.Term(pj.PostTrainSpace(), pj.GroupRelative(True), pj.SequenceMeanTokenSum(2.0)),
    )
    alone = [gradient_of(pj.Phase("p", 1, t.space, t.credit, weigh=t.weigh), rollouts) for t in terms]
    mixed = gradient_of(pj.Phase("p", 1, terms=terms), rollouts)
    toy.assert_close(mixed, jax.tree.map(jnp.add, *alone))
