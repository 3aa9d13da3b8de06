"""Runs whose guards end phases early: the parameters that the run continues with, also after a resume."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import toy
from tiny_run import Died, Later, dies_at, lines, state_at, timeless

from prerl_jax import Above, EndPhase, Guard, Phase, PhaseStart, RollBack, Warn, grpo, nsr_prerl
from prerl_jax.config import AlignmentSpec
from prerl_jax.config.checks import validate
from prerl_jax.config.io import load_config
from prerl_jax.core.types import CriticState, TrainState
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.trainer import beginning, start
from prerl_jax.trainer.beginning import place_in_changed_phases
from prerl_jax.trainer.guards import GuardState, roll_back
from prerl_jax.trainer.start import run


def tiny(*guards, second=(), **fields):
    """Five steps of NSR-PreRL under guards, three of RL; a checkpoint every step."""
    config = tiny_run.config()
    (first,), (then,) = nsr_prerl(steps=5), grpo(steps=3)
    phases = dataclasses.replace(first, guards=guards), dataclasses.replace(then, guards=second)
    checkpoints = dataclasses.replace(config.checkpoints, keep_last=3)
    return dataclasses.replace(
        config, phases=phases, alignment=AlignmentSpec(), **{"checkpoints": checkpoints} | fields
    )


def watching_its_divergence(config):
    """The second phase warns when the policy has moved away from its start."""
    first, second = config.phases
    moved = Guard("train/reference_kl", Above(1e-8), Warn())
    return dataclasses.replace(
        config, phases=(first, dataclasses.replace(second, reference=PhaseStart(), guards=(moved,)))
    )


BACK = watching_its_divergence(
    tiny(Guard("train/reward", Later(3), RollBack()), Guard("train/length", Above(0.0), Warn(), patience=2))
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir, console = tmp_path_factory.mktemp("undisturbed"), tiny_run.quiet()
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        return workdir, run(BACK, workdir, console=console), console.file.getvalue()


@pytest.mark.slow
def test_a_run_that_goes_back_says_so(undisturbed):
    workdir, rows, output = undisturbed
    records = lines(workdir)
    assert [r["phase"] for r in records] == ["base"] + ["nsr_prerl"] * 4 + ["grpo"] * 3
    assert [r["train/guard/train/reward/later"] for r in records[1:5]] == [0, 0, 0, 1]
    assert not any("guard" in name for name in records[0])
    # The phase begins with what was rolled back to, so that at first it has moved by rounding alone.
    assert [r["train/guard/train/reference_kl/above"] for r in records[5:]] == [0, 1, 2]
    assert records[5]["train/reference_kl"] < 1e-10
    said = "guard train/reward later 3 at step 4 -> rolled back to step 2"
    warned = ["train/length above 0.0 at step 2"]
    assert [(row["at"], row["step"], row.get("ended"), row.get("warned")) for row in rows] == [
        ("base", 0, None, None),
        ("nsr_prerl", 4, said, warned),
        ("grpo", 7, None, ["train/reference_kl above 1e-08 at step 6"]),
    ]
    assert f"nsr_prerl ended: {said}" in output
    assert "warning: guard train/length above 0.0 at step 2" in output
    assert "step 4/8" not in output
    assert "step 4/7" in output


@pytest.mark.parametrize("at", [pytest.param(3, marks=pytest.mark.slow), 4])
def test_it_goes_on_from_the_good_checkpoint_and_a_resume_does_the_same(tmp_path, undisturbed, setup, at):
    """Killed before the guard trips, and right after the end of its phase is saved."""
    with pytest.raises(Died), dies_at(BACK, at):
        run(BACK, tmp_path, console=tiny_run.quiet())
    if at == 4:
        good, now, before = (state_at(tmp_path, setup, step) for step in (2, 4, 3))
        toy.assert_same_bits((now.params, now.opt_state), (good.params, good.opt_state))
        assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (good.params, before.params)), strict=True))
        assert (now.step, now.phase, now.phase_step) == (4, 1, 0)
    console = tiny_run.quiet()
    run(BACK, tmp_path, console=console)
    assert f"resumed from the checkpoint at step {at}" in console.file.getvalue()
    workdir = undisturbed[0]
    assert timeless(tmp_path) == timeless(workdir)
    for name in ("completions.jsonl", "summary.json"):
        assert (tmp_path / name).read_text() == (workdir / name).read_text()
    for step in (4, 7):
        toy.assert_same_bits(state_at(tmp_path, setup, step), state_at(workdir, setup, step))


@pytest.mark.slow
def test_back_to_the_beginning_and_an_end_before_the_last_step(tmp_path, setup, monkeypatch):
    """The evaluation at the beginning is a guard's first measurement; and of a phase's end parameters it is the one."""
    evaluation = dataclasses.replace(tiny_run.config().evaluation, every=1)
    first = Guard("eval/avg@2", Later(1), RollBack())
    config = tiny(first, second=(Guard("train/reward", Later(1), EndPhase()),), evaluation=evaluation)
    rows = run(config, tmp_path, console=tiny_run.quiet())
    assert [(row["at"], row["step"]) for row in rows] == [("base", 0), ("nsr_prerl", 1), ("grpo", 3)]
    assert "guard eval/avg@2 later 1 at step 1 -> rolled back to step 0" in rows[1]["ended"]
    assert rows[2]["ended"] == "guard train/reward later 1 at step 3"
    assert {n: v for n, v in rows[1].items() if "eval/" in n} == {n: v for n, v in rows[0].items() if "eval/" in n}
    began = jax.tree.map(np.asarray, setup.load_params())
    toy.assert_same_bits(state_at(tmp_path, setup, 1).params, began)
    assert (state_at(tmp_path, setup).phase, state_at(tmp_path, setup).step) == (2, 3)

    monkeypatch.setattr(start, "set_up", lambda config: pytest.fail("a finished run has nothing to set_up"))
    assert run(config, tmp_path, console=tiny_run.quiet()) == rows


def test_a_phase_that_was_ended_stays_ended_under_another_config(monkeypatch):
    """The first one after two of its five steps; the second had all of its three, and is given a fourth."""
    monkeypatch.setattr(beginning, "at_phase", lambda state, mesh, index, done: (index, done))
    guards = GuardState(ended={"first": {"steps": 2, "reason": ""}})
    for second, step, place in ((3, 1, (0, 1)), (3, 2, (1, 0)), (3, 5, (2, 0)), (4, 5, (1, 3)), (4, 7, (2, 1))):
        phases = Phase("first", 5), Phase("second", second), Phase("third", 2)
        setup = types.SimpleNamespace(phases=phases, mesh=None)
        assert place_in_changed_phases(setup, types.SimpleNamespace(step=step), guards) == place
    with pytest.raises(
        ValueError, match=r"checkpoint is of step 9, and the new config has 8 steps: give its phases more"
    ):
        place_in_changed_phases(setup, types.SimpleNamespace(step=9), guards)


@pytest.mark.slow
def test_the_checkpoint_to_go_back_to_is_kept(tmp_path, monkeypatch):
    """Only the newest checkpoint is retained, and the guard's patience is longer."""
    kept = []
    monkeypatch.setattr(Checkpoints, "read", lambda self, state, newest: kept.append((newest, self.steps())) or 1 / 0)
    guard = Guard("train/reward", Later(2), RollBack(every=1), patience=3)
    spec = dataclasses.replace(tiny_run.config().checkpoints, every=0, keep_last=1)
    with pytest.raises(ZeroDivisionError):
        run(tiny(guard, checkpoints=spec), tmp_path, console=tiny_run.quiet())
    assert kept == [(1, [1, 4])]


@pytest.mark.parametrize("found", [True, False])
def test_going_back_takes_all_that_learns_and_none_of_the_counters(found):
    """The critic is rolled back, too: to a checkpoint or, if none is early enough, to the beginning."""

    def state(value, count):
        arrays, counter = (jnp.full(3, value) for _ in range(4)), jnp.int32(count)
        params, moments, critic, of_critic = arrays
        return TrainState(counter, params, moments, jnp.uint32(count), counter, counter, CriticState(critic, of_critic))

    now, then = state(1.0, 7), state(2.0, 4)
    asked = []
    checkpoints = types.SimpleNamespace(
        steps=lambda: [2, 4, 6],
        read=lambda abstract, newest: (
            asked.append(newest) or (types.SimpleNamespace(state=then, step=4) if found else None)
        ),
    )
    setup = types.SimpleNamespace(abstract_state=lambda: None, critic=None)
    back, step = roll_back(setup, checkpoints, lambda: then, now, 5)
    assert (asked, step) == ([5], 4 if found else 0)
    np.testing.assert_array_equal(jax.tree.leaves((back.params, back.opt_state, back.critic)), np.full((4, 3), 2))
    assert [int(n) for n in (back.step, back.rng, back.phase, back.phase_step)] == [7] * 4
    assert all(array.is_deleted() for array in jax.tree.leaves((now.params, now.opt_state, now.critic)))


REFUSED = [
    (
        Guard("eval/avg@8", Above(0.0)),
        "phase 'nsr_prerl' has a guard on eval/avg@8, .*samples = 2: watch one of eval/avg@2",
    ),
    (Guard("eval/avg@2", Above(0.0), EndPhase()), "evaluation.every = 0 it is measured only after the phase's 5 steps"),
    (Guard("alignment/objective", Above(0.0)), "alignment.every is 0"),
]


@pytest.mark.parametrize(("guard", "says"), REFUSED)
def test_a_guard_on_what_is_not_measured_is_refused(guard, says):
    with pytest.raises(ValueError, match=says):
        validate(tiny(guard))


@pytest.mark.parametrize(
    ("kind", "every", "start", "measured"),
    [
        ("alignment", 5, 0, 1),  # steps 1 to 5: of step 1
        ("alignment", 2, 0, 3),
        ("alignment", 5, 1, 1),  # steps 2 to 6: of step 6
        ("alignment", 6, 1, 0),
        ("eval", 0, 0, 2),  # the beginning and the end
        ("eval", 5, 0, 2),
        ("eval", 2, 0, 4),  # steps 2 and 4 between them
        ("eval", 2, 1, 4),  # steps 2 to 6: 2 and 4
        ("eval", 3, 1, 3),
    ],
)
def test_a_guard_is_shown_its_metric_often_enough(kind, every, start, measured):
    """In a phase of five steps."""
    metric = {"alignment": "alignment/objective", "eval": "eval/avg@2"}[kind]
    before = (Phase("before", start),) if start else ()

    def config(patience):
        base = tiny(Guard(metric, Above(0.0), patience=patience))
        evaluation = dataclasses.replace(base.evaluation, every=every)
        cadences = {
            "alignment": AlignmentSpec(every if kind == "alignment" else 0, prompts=4),
            "evaluation": evaluation,
        }
        return dataclasses.replace(base, phases=(*before, *base.phases), **cadences)

    if measured:
        validate(config(measured))
    with pytest.raises(
        ValueError, match=f"measured {measured} times in the phase's 5 steps, so the guard could never trip"
    ):
        validate(config(measured + 1))


def test_a_config_with_guards_is_a_config_file(undisturbed):
    assert load_config(undisturbed[0] / "config.py") == BACK


@pytest.mark.slow
def test_a_guard_on_a_metric_of_training_that_there_is_not(tmp_path):
    config = tiny(Guard("train/entropie", Above(0.0)))
    with pytest.raises(RuntimeError, match=r"after step \d: .* a guard on train/entropie, .* measure .*train/entropy"):
        run(config, tmp_path, console=tiny_run.quiet())
