"""Phases are data: the table of steps, the moves between phases, and the recipes' exact contents."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.core import recipes
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


def test_guards_are_those_of_the_warm_up():
    watched, plain = pj.dsrl(warmup=2, total=5, guards=pj.WARMUP_GUARDS), pj.dsrl(warmup=2, total=5)
    assert watched == (dataclasses.replace(plain[0], guards=pj.WARMUP_GUARDS), plain[1])


def named(name, **settings):
    return pj.Phase(name, 7, **settings)


def rl(name, steps, keep, high):
    objective = pj.ClippedPG(clip_low=0.2, clip_high=high, dual_clip=10.0)
    return pj.Phase(name, steps, pj.PostTrainSpace(), pj.GroupRelative(True, keep), objective, pj.TokenMean(1.0))


def pre(name, steps, keep, prefix):
    objective = pj.ClippedPG(clip_low=0.2, clip_high=0.2, dual_clip=10.0)
    advantage = pj.GroupRelative(normalize_std=False, keep=keep)
    return pj.Phase(name, steps, pj.PreTrainSpace(prefix), advantage, objective, pj.TokenMean(0.01))


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
PPO, CLIPPED = pj.ClippedPG(0.2, 0.2, None), pj.GroupRelative(True)
SUM = pj.SequenceMeanTokenSum()
RIVALS = [
    (
        pj.dr_grpo(steps=7),
        named("dr_grpo", advantage=pj.GroupRelative(False), objective=PPO, aggregation=pj.SequenceMeanTokenSumNorm()),
    ),
    (
        pj.dapo(steps=7, overlong_buffer=4),
        named(
            "dapo",
            advantage=CLIPPED,
            max_resamples=3,
            objective=pj.ClippedPG(0.2, 0.28, None),
            reward_shaping=pj.OverlongPenalty(4),
        ),
    ),
    (
        pj.dapo(steps=7, overlong_buffer=4, filter_truncated=True),
        named(
            "dapo",
            advantage=pj.DropTruncated(CLIPPED),
            max_resamples=3,
            objective=pj.ClippedPG(0.2, 0.28, None),
            reward_shaping=pj.OverlongPenalty(4),
        ),
    ),
    (
        pj.reinforce(steps=7, baseline=0.5),
        named("reinforce", advantage=pj.ConstantBaseline(0.5), objective=pj.Reinforce(), aggregation=SUM),
    ),
    (pj.rloo(steps=7), named("rloo", advantage=pj.LeaveOneOut(), objective=pj.Reinforce(), aggregation=SUM)),
    (pj.reinforce_pp(steps=7), named("reinforce_pp", advantage=pj.BatchNormalized(), objective=PPO)),
    (
        pj.reinforce_pp(steps=7, group_baseline=True),
        named("reinforce_pp_baseline", advantage=pj.BatchNormalized(True), objective=PPO),
    ),
    (
        pj.gspo(steps=7),
        named("gspo", advantage=CLIPPED, objective=pj.GSPO(3e-4, 4e-4), aggregation=pj.SequenceMeanTokenMean()),
    ),
    (pj.cispo(steps=7), named("cispo", advantage=CLIPPED, objective=pj.CISPO(None, 4.0))),
    (pj.psr(steps=7), named("psr", advantage=pj.BinaryAdvantage(1.0, 1.0, "positive"), objective=PPO)),
    (pj.nsr(steps=7), named("nsr", advantage=pj.BinaryAdvantage(1.0, 1.0, "negative"), objective=PPO)),
    (pj.w_reinforce(steps=7), named("w_reinforce", advantage=pj.BinaryAdvantage(0.1, 1.0, "all"), objective=PPO)),
    (
        pj.mixed(steps=7, pretrain=pj.Linear(0.1, 0.0, 5), prefix=3),
        named(
            "mixed",
            terms=(
                pj.Term(pj.PreTrainSpace(3), pj.GroupRelative(False, "negative"), coefficient=pj.Linear(0.1, 0.0, 5)),
                pj.Term(pj.PostTrainSpace(), pj.GroupRelative(True), coefficient=1.0),
            ),
        ),
    ),
    (pj.prompt_dropout(steps=7, share=0.25), named("prompt_dropout", space=pj.PromptDropout(0.25, "auto"))),
]


@pytest.mark.parametrize(("phases", "expected"), RIVALS)
def test_the_rivals_recipes(phases, expected):
    assert phases == (expected,)
    assert eval(repr(phases), vars(pj)) == phases


@pytest.mark.parametrize(("phases", "expected"), RECIPES)
def test_recipes(phases, expected):
    assert phases == tuple(expected)
    for phase in phases:  # what the recipes leave alone: moments carried over, the run's rate, temperature 1, one term
        assert (phase.reset_optimizer, phase.learning_rate, phase.temperature, phase.terms) == (False, None, 1.0, ())
    assert eval(repr(phases), vars(pj)) == phases


ALL_RECIPES = [
    function for _, function in inspect.getmembers(recipes, inspect.isfunction) if function.__name__[0] != "_"
]


@pytest.mark.parametrize("recipe", ALL_RECIPES)
def test_recipes_take_keywords_alone(recipe):
    kinds = {p.kind for p in inspect.signature(recipe).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    assert getattr(pj, recipe.__name__) is recipe


@pytest.mark.parametrize(("warmup", "total"), [(-1, 3), (4, 3), (0, 0)])
def test_dsrl_refuses_totals_that_do_not_hold_the_warm_up(warmup, total):
    with pytest.raises(ValueError, match=f"warmup={warmup}, total={total}"):
        pj.dsrl(warmup=warmup, total=total)


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
        with pytest.raises(ValueError, match=r"shapes rewards by OverlongPenalty.*reads a reward as right or wrong"):
            pj.Phase("p", 1, advantage=advantage, reward_shaping=pj.OverlongPenalty(4))
    for coefficient in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"Term.coefficient is"):
            pj.Term(pj.PostTrainSpace(), coefficient=coefficient)


@dataclasses.dataclass(frozen=True)
class NoTraits:
    def __call__(self, *given):
        return given


class Misplaced(NoTraits):
    traits = pj.SpaceTraits()


@pytest.mark.parametrize(
    ("field", "record", "names"),
    [
        ("space", "SpaceTraits", "given_prompt, needs_key"),
        ("advantage", "AdvantageTraits", "compares_group, needs_values, needs_verdict"),
        ("objective", "ObjectiveTraits", "elementwise, skips_zero_advantage, "),
        ("reward_shaping", "RewardShapingTraits", "needs_reference"),
    ],
)
def test_a_part_without_its_traits_is_refused_with_the_line_to_add(field, record, names):
    wrong = [NoTraits()] if field == "space" else [NoTraits(), Misplaced()]
    for part in wrong:
        says = (
            rf"{type(part).__name__}\.traits is .*must be of the class {record}\. .*`traits = {record}\(\)`.*: {names}"
        )
        with pytest.raises(ValueError, match=says):
            pj.Phase("p", 1, **{field: part})
        if field in ("space", "advantage"):
            with pytest.raises(ValueError, match=says):
                pj.Term(**{"space": pj.PostTrainSpace(), field: part})
    with pytest.raises(ValueError, match=r"GroupRelative is a class, and an instance is needed"):
        pj.Phase("p", 1, **{field: pj.GroupRelative})
    with pytest.raises(ValueError, match=r"3 cannot be called\. Give the class int a method __call__"):
        pj.Phase("p", 1, **{field: 3})


def test_a_misspelt_trait_is_refused_where_the_class_is_defined():
    with pytest.raises(TypeError, match="element_wise"):

        class Misspelt:
            traits = pj.ObjectiveTraits(element_wise=True)


@dataclasses.dataclass(frozen=True)
class KnownAlone:
    """The reward, of responses whose verdict is known."""

    traits = pj.AdvantageTraits()

    def __call__(self, rollouts, group_size, values=None):
        return jnp.where(rollouts.known, rollouts.rewards, 0.0), rollouts.known


def test_estimators_see_which_verdicts_are_known():
    known = jnp.arange(8) % 3 > 0
    rollouts = dataclasses.replace(toy.rollouts(), known=known)
    prepare = jax.jit(pj.make_prepare(pj.Phase("p", 1, advantage=KnownAlone()), 4))
    batch = prepare(rollouts)
    np.testing.assert_array_equal(batch.weights.any(axis=1), known)
    part = prepare(rollouts, rows=jnp.arange(4))
    np.testing.assert_array_equal(part.weights.any(axis=1), known[:4])


@pytest.mark.parametrize(
    ("name", "value"),
    [("loss_mask", jnp.ones((8, 4), bool)), ("known", jnp.ones((8, 5), bool)), ("rewards", jnp.ones((8, 5)))],
)
def test_arrays_of_rollouts_that_do_not_match_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"Rollouts of 8 responses of 5 tokens have {name} of shape"):
        pj.make_prepare(pj.Phase("p", 1), 4)(dataclasses.replace(toy.rollouts(), **{name: value}))


@pytest.mark.parametrize("space", [pj.PostTrainSpace(), pj.PreTrainSpace(0)])
def test_token_means_are_over_the_loss_mask(space):
    rollouts = toy.rollouts()
    loss_mask = jnp.arange(5) % 2 == jnp.arange(8)[:, None] % 2
    masked = dataclasses.replace(rollouts, loss_mask=loss_mask)
    phase = pj.Phase("p", 1, space, pj.ConstantBaseline(-1.0))
    batch, whole = (jax.jit(pj.make_prepare(phase, 4))(r) for r in (masked, rollouts))
    trained = np.asarray(rollouts.response_mask & loss_mask)
    np.testing.assert_allclose(batch.weights[:, -5:], trained / trained.sum(), rtol=1e-6)
    np.testing.assert_array_equal(batch.advantages[:, -5:] != 0, trained)
    np.testing.assert_array_equal(batch.sequences.tokens, whole.sequences.tokens)
    np.testing.assert_array_equal(batch.sequences.segments, whole.sequences.segments)


def gradient_of(phase, rollouts, model=toy.Toy(), **given):  # noqa: B008
    batch = pj.make_prepare(phase, 4)(rollouts, **given)
    loss = pj.make_loss(model, phase.objective)
    (value, sums), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.init(), batch)
    return value, gradient, sums["tokens"]


def test_the_gradient_of_a_mixed_phase_is_the_sum_of_its_terms():
    rollouts = toy.rollouts()
    terms = (
        pj.Term(pj.PreTrainSpace(prefix=0), pj.GroupRelative(False, "negative"), pj.TokenMean(0.3)),
        pj.Term(pj.PostTrainSpace(), pj.GroupRelative(True), pj.SequenceMeanTokenSum(2.0)),
    )
    alone = [gradient_of(pj.Phase("p", 1, t.space, t.advantage, aggregation=t.aggregation), rollouts) for t in terms]
    mixed = gradient_of(pj.Phase("p", 1, terms=terms), rollouts)
    toy.assert_close(mixed, jax.tree.map(jnp.add, *alone))


def test_a_coefficient_on_a_schedule_of_the_phases_steps():
    rollouts, fades = toy.rollouts(), pj.Linear(0.4, 0.0, 4)
    (phase,) = pj.mixed(steps=9, pretrain=fades, posttrain=2.0, prefix=0)
    prepare = pj.make_prepare(phase, 4)
    with pytest.raises(ValueError, match=r"Linear.* is a schedule: pass prepare\(..., phase_step=n\)"):
        prepare(rollouts)
    whole = pj.make_prepare(pj.mixed(steps=9, pretrain=1.0, prefix=0)[0], 4)(rollouts).weights
    for step, factor in ((0, 0.4), (1, 0.3), (4, 0.0), (8, 0.0)):
        found = jax.jit(prepare)(rollouts, phase_step=jnp.asarray(step)).weights
        np.testing.assert_allclose(found[:8], factor * whole[:8], rtol=1e-6)  # the negatives in P(y)
        np.testing.assert_allclose(found[8:], 2 * whole[8:], rtol=1e-6)  # all, in P(y|x)


def test_advantages_are_computed_from_the_shaped_reward():
    rollouts = toy.rollouts()
    shape = pj.OverlongPenalty(3)
    batch = pj.make_prepare(pj.Phase("p", 1, reward_shaping=shape, advantage=pj.LeaveOneOut()), 4)(rollouts)
    expected, _ = pj.LeaveOneOut()(toy.rewarded(shape(rollouts, 5)), 4)
    assert (expected != pj.LeaveOneOut()(rollouts, 4)[0]).any()
    np.testing.assert_allclose(batch.advantages, np.where(batch.sequences.mask, expected[:, None], 0))


@pytest.mark.parametrize("prefix", [0, None])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_prompt_dropout_lies_between_the_spaces(share, prefix):
    rollouts, key = toy.rollouts(), jax.random.key(0)
    end = pj.PreTrainSpace(prefix) if share else pj.PostTrainSpace()
    ours = gradient_of(pj.Phase("p", 1, pj.PromptDropout(share, prefix)), rollouts, key=key)
    toy.assert_close(ours, gradient_of(pj.Phase("p", 1, end), rollouts))


def test_prompt_dropout_without_the_steps_key_is_refused():
    with pytest.raises(ValueError, match=r"PromptDropout\(share=0.5.* draws at random: pass prepare\(..., key=k\)"):
        pj.make_prepare(pj.Phase("p", 1, pj.PromptDropout(0.5, 0)), 4)(toy.rollouts())


def test_a_phase_with_gae_takes_the_critics_values():
    rollouts, phase = toy.rollouts(), pj.Phase("p", 1, advantage=pj.GAE(lam=1.0, normalize=False))
    values = jnp.full(rollouts.response.shape, 0.5)
    prepare = pj.make_prepare(phase, 4)
    batch = prepare(rollouts, values=values)
    expected = np.where(batch.sequences.mask, rollouts.rewards[:, None] - 0.5, 0)
    np.testing.assert_allclose(batch.advantages, expected)
    with pytest.raises(ValueError, match="needs a critic's values"):
        prepare(rollouts)
