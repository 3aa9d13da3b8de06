"""The decisions of guards from the metrics of steps, and the newest good step."""

import json

import pytest

from prerl_jax import Above, Below, EndPhase, FellBy, Guard, Phase, RollBack, Warn
from prerl_jax.trainer.guards import GuardState, rollback_interval

ENTROPY, ACCURACY = "train/entropy", "eval/avg@8"


def phase(*guards):
    return Phase("p", 100, guards=guards)


def decide(phase, rows, start=10, evaluated=None, through_json=False):
    """The decisions on rows of metrics, steps start + 1, ...; a resume before each step changes nothing."""
    state, decisions = GuardState(), []
    state.enter(phase, start, evaluated or {})
    for number, row in enumerate(rows, start + 1):
        if through_json:
            state = GuardState.of(json.loads(json.dumps(state.saved())))
        decisions.append(state.decide(phase, number, row))
    return state, decisions


ROWS = [{ENTROPY: e, ACCURACY: a} for e, a in [(1.0, 0.5), (2.5, 0.45), (1.5, 0.5), (2.2, 0.3), (2.3, 0.2), (9.0, 0.1)]]
GUARDS = [
    # guard, the steps at which it trips for the first time, and what is good then
    (Guard(ENTROPY, Above(2.0), RollBack()), 12, 10),  # the entropy of step 12 is that of the parameters after 11
    (Guard(ENTROPY, Above(2.0), RollBack(), patience=2), 15, 12),
    (Guard(ENTROPY, Above(2.0), RollBack(), patience=3), 16, 12),
    (Guard(ACCURACY, Below(0.4), RollBack()), 14, 13),  # the accuracy of step 14 is that of the parameters after it
    (Guard(ACCURACY, Below(0.4), RollBack(), patience=2), 15, 13),
    (Guard(ACCURACY, FellBy(0.35), RollBack()), 14, 13),  # from the 0.7 that the phase began with
    (Guard(ACCURACY, FellBy(0.35), EndPhase()), 14, None),
    (Guard(ACCURACY, FellBy(0.35), Warn()), None, None),
]


@pytest.mark.parametrize("through_json", [False, True])
@pytest.mark.parametrize(("guard", "step", "good"), GUARDS)
def test_when_a_guard_trips_and_what_is_good_then(guard, step, good, through_json):
    _, decisions = decide(phase(guard), ROWS, evaluated={ACCURACY: 0.7}, through_json=through_json)
    ends = [(n, d.good) for n, d in enumerate(decisions, 11) if d.reaction is not None]
    assert ends[:1] == ([] if step is None else [(step, good)])


def test_the_strongest_reaction_counts_and_the_earliest_good_step():
    guards = [
        Guard(ENTROPY, Above(2.0), Warn()),
        Guard(ACCURACY, Below(0.35), EndPhase()),
        Guard(ENTROPY, Above(2.0), RollBack(), patience=2),
        Guard(ACCURACY, Below(0.25), RollBack(every=3)),
    ]
    found, decisions = decide(phase(*guards), ROWS)
    assert [d.reaction for d in decisions[:5]] == [None, None, None, EndPhase(), RollBack()]
    assert decisions[4].good == 12
    assert decisions[1].warned == ("train/entropy above 2.0 at step 12",)
    assert decisions[1].ended == decisions[2].warned == decisions[4].warned == ()
    assert decisions[3].ended == ("eval/avg@8 below 0.35 at step 14",)
    assert decisions[4].ended == ("train/entropy above 2.0 at step 15", "eval/avg@8 below 0.25 at step 15")
    assert found.warned == {"p": [f"train/entropy above 2.0 at step {n}" for n in (12, 14)]}  # anew each time
    assert [d.metrics["train/guard/train/entropy/above"] for d in decisions] == [0, 1, 0, 1, 2, 3]
    assert [d.metrics["train/guard/eval/avg@8/below"] for d in decisions] == [0, 0, 0, 1, 2, 3]
    assert rollback_interval(phase(*guards)) == 3
    assert rollback_interval(phase(guards[0])) == rollback_interval(phase(Guard(ENTROPY, Above(1.0), RollBack(0)))) == 0


def test_the_checkpoint_that_may_still_be_needed():
    """Without it, a save would remove a checkpoint that the next step may roll back to."""
    train, evaluated = Guard(ENTROPY, Above(2.0), RollBack(), 9), Guard(ACCURACY, Below(0.4), RollBack(), 9)
    for guard, expected in ((train, [10, 10, 12, 12, 12, 12]), (evaluated, [11, 12, 13, 13, 13, 13])):
        needed = [decide(phase(guard), ROWS[:n])[0].needed(phase(guard)) for n in range(1, 7)]
        assert needed == [(n,) for n in expected]
    assert decide(phase(train, evaluated), ROWS[:3])[0].needed(phase(evaluated, train)) == (13, 12)
    assert decide(phase(ended := Guard(ENTROPY, Above(2.0), EndPhase())), ROWS[:1])[0].needed(phase(ended)) == ()


def test_what_lies_between_two_measurements_is_not_known_to_be_good():
    """Evaluations at steps 12 and 15, the second one bad; then one at step 15 only."""
    guard = Guard(ACCURACY, Below(0.4), RollBack())
    rows = [{}, {ACCURACY: 0.5}, {}, {}, {ACCURACY: 0.3}]
    _, decisions = decide(phase(guard), rows)
    assert [d.good for d in decisions] == [None] * 4 + [12]
    assert [decide(phase(guard), rows[:n])[0].needed(phase(guard)) for n in range(5)] == [(-1,)] * 2 + [(12,)] * 3
    rows[1] = {}
    assert decide(phase(guard), rows)[1][-1].good < 10, "the phase's beginning"
    assert decide(phase(guard), rows, evaluated={ACCURACY: 0.5})[1][-1].good == 10


def test_what_is_not_measured_does_not_count():
    """A step without a trained token has no entropy, though its line says 0; evaluations are not at every step."""
    guard, both = Guard(ENTROPY, Below(1.0), EndPhase(), 2), Guard(ACCURACY, Below(0.4), EndPhase(), 2)
    rows = [
        {ENTROPY: 0.5, "train/tokens": 9.0},
        {ENTROPY: 0.0, "train/tokens": 0.0, "train/reward": 0.1},
        {ENTROPY: 1.5, "train/tokens": 9.0, ACCURACY: 0.3},
        {ENTROPY: 1.5, "train/tokens": 9.0},
        {ENTROPY: 1.5, "train/tokens": 9.0, ACCURACY: 0.3},
    ]
    found, decisions = decide(phase(guard, both), rows)
    assert [d.reaction for d in decisions] == [None] * 4 + [EndPhase()]
    assert found.values[ENTROPY] == [(11, 0.5), (13, 1.5), (14, 1.5), (15, 1.5)]


def test_a_metric_that_there_is_not_is_refused_with_those_that_there_are():
    rows = [{"train/loss": 0.1, ENTROPY: 1.0}]
    for metric in ("train/entropie", "alignment/objective"):
        watched = phase(Guard(metric, Above(1.0)))
        if metric.startswith("alignment/"):
            decide(watched, rows)  # not measured in this step
            rows = [{"alignment/other": 1.0}]
        with pytest.raises(ValueError, match=rf"'p' has a guard on {metric}.*they measure (train|alignment)/"):
            decide(watched, rows)


@pytest.mark.parametrize("metric", ["train/unknown", "train/zero_advantage_groups"])
def test_a_step_without_trained_tokens_measures_what_describes_its_rollouts(metric):
    guard = Guard(metric, Above(0.3), EndPhase())
    rows = [{metric: share, ENTROPY: 0.0, "train/tokens": 0.0} for share in (0.1, 0.4)]
    found, decisions = decide(phase(guard, Guard(ENTROPY, Below(0.5), EndPhase())), rows)
    assert [d.ended for d in decisions] == [(), (f"{metric} above 0.3 at step 12",)]
    assert list(found.values) == [metric]
