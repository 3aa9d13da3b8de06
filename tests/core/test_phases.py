"""Phases are data: the table of steps, the moves between phases, and settings that are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import prerl_jax as pj
from prerl_jax.core.phases import following, locate, steps_left

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
    assert steps_left((A, B, C), *expected) == 6 - step
    if step < 6:
        assert following((A, B, C), *expected) == AFTER[step + 1]


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "'p' has 0 steps"), ({"temperature": 0.0}, "temperature 0.0"), ({"temperature": -1}, "above 0")],
)
def test_phases_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pj.Phase("p", **{"steps": 1} | settings)


def test_combinations_that_make_no_sense_are_refused():
    corrected = pj.TruncatedIS(pj.ClippedPG())
    for space in (pj.PreTrainSpace(), pj.PromptDropout(0.5)):
        with pytest.raises(ValueError, match=r"'p' weights tokens .*another distribution.*PostTrainSpace\(\)"):
            pj.Phase("p", 1, space, objective=pj.WithEntropy(corrected, 0.1))
    with pytest.raises(ValueError, match="another distribution"):
        pj.Phase("p", 1, objective=corrected, terms=(pj.Term(pj.PostTrainSpace()), pj.Term(pj.PreTrainSpace())))
    (mixed,) = pj.mixed(steps=1)
    with pytest.raises(
        ValueError, match=r"would not use its own advantage=LeaveOneOut.*aggregation=.*\(terms.0.advantage\)"
    ):
        dataclasses.replace(mixed, advantage=pj.LeaveOneOut(), aggregation=pj.TokenMean(0.5))
    assert pj.Phase("p", 1, objective=corrected).all_terms == pj.grpo(steps=1)[0].all_terms
    for advantage in (pj.BinaryAdvantage(), pj.DropTruncated(pj.BinaryAdvantage())):
        with pytest.raises(ValueError, match=r"shapes rewards by OverlongPenalty.*reads whether a response is right"):
            pj.Phase("p", 1, advantage=advantage, reward_shaping=pj.OverlongPenalty(4))
    for coefficient in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"Term.coefficient is"):
            pj.Term(pj.PostTrainSpace(), coefficient=coefficient)


@pytest.mark.parametrize("updates", [{"epochs": 2}, {"minibatches": 2}])
@pytest.mark.parametrize(
    "objective",
    [
        pj.Reinforce(),
        pj.WithKL(pj.WithEntropy(pj.Reinforce(), 0.1), 0.1),
        pj.LogprobFloor(pj.TruncatedIS(pj.Reinforce()), -5.0),
    ],
)
def test_reinforce_with_several_updates_a_step_is_refused(objective, updates):
    """Minibatches as well as epochs: from the second update on, another policy has sampled the responses."""
    for phase in (*pj.rloo(steps=1), *pj.reinforce(steps=1)):
        with pytest.raises(ValueError, match=r"2 updates a step.*no ratio.*epochs=1 and minibatches=1, .*ClippedPG"):
            dataclasses.replace(phase, objective=objective, **updates)
    assert pj.Phase("p", 1, objective=objective).updates == 1


@dataclasses.dataclass(frozen=True)
class Imitation:
    """A supervised loss of one's own, which does not care who has sampled."""

    traits = pj.ObjectiveTraits(elementwise=True)

    def __call__(self, logprobs, batch, entropy):
        return -logprobs, {}


def test_several_updates_of_other_objectives_are_not_refused():
    for objective in (pj.ClippedPG(), pj.GSPO(), pj.CISPO(), Imitation()):
        assert pj.Phase("p", 1, objective=objective, epochs=2, minibatches=2).updates == 4
