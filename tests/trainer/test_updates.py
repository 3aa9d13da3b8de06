"""References and several updates a step, in a run: their metrics, the policies that they compare, and resuming."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import toy
from tiny_run import Died, dies_at, lines, state_at, timeless

import prerl_jax as pj
from prerl_jax.config import AlignmentSpec
from prerl_jax.runtime.checkpoint_address import CheckpointAddress
from prerl_jax.trainer import updates as updates_module
from prerl_jax.trainer.batching import SHUFFLE, minibatch
from prerl_jax.trainer.metrics import mean_over_updates
from prerl_jax.trainer.references import References
from prerl_jax.trainer.start import run
from prerl_jax.trainer.timing import StepClock
from prerl_jax.trainer.updates import prepare, update

KL = pj.WithKL(pj.ClippedPG(), 0.1)
TERMS = (pj.Term(pj.PreTrainSpace("auto"), coefficient=pj.Linear(0.5, 0.1, 2)), pj.Term(pj.PostTrainSpace()))
PHASES = (
    pj.Phase("kl", 2, pj.PreTrainSpace("auto"), objective=KL, reference=pj.InitialModel()),
    pj.Phase(
        "reward", 2, terms=TERMS, reward_shaping=pj.KLPenalty(0.5), reference=pj.PhaseStart(), epochs=2, minibatches=2
    ),
)


def config(phases=PHASES, **more):
    return dataclasses.replace(tiny_run.config(), phases=phases, alignment=AlignmentSpec(), **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        run(config(), workdir, console=tiny_run.quiet())
    return workdir


@pytest.mark.slow
def test_what_is_measured(whole):
    first, second, third, fourth = lines(whole)[1:]
    assert [r["phase"] for r in (first, second, third, fourth)] == ["kl", "kl", "reward", "reward"]
    assert first["train/reference_kl"] < 1e-9 < second["train/reference_kl"], "the first step is compared with itself"
    assert third["train/reference_kl"] > 1e-9, "and so is the third, but for its own earlier updates"
    assert abs(first["train/ratio"] - 1) < 1e-6
    for record in (third, fourth):
        assert abs(record["train/ratio"] - 1) > 1e-5
        assert record["train/skipped"] == 0


@pytest.mark.slow
def test_references_are_of_the_steps_that_they_name(whole, setup, tmp_path):
    """Loaded in the middle of the second phase, and with no checkpoint to load."""
    initial, start = PHASES
    states = {step: state_at(whole, setup, step) for step in (2, 3)}
    of = References(setup, whole / "checkpoints").of
    toy.assert_same_bits(of(start, states[3]), states[2].params)
    assert of(tiny_run.config().phases[1], states[3]) is None
    toy.assert_same_bits(of(initial, states[3]), setup.load_params())
    begun = References(setup, tmp_path, CheckpointAddress(whole, 2)).of(initial, states[3])
    toy.assert_same_bits(begun, states[2].params)
    toy.assert_same_bits(References(setup, tmp_path).of(start, states[2]), states[2].params)
    with pytest.raises(ValueError, match=r"'reward' compares with PhaseStart\(\): there are no checkpoints"):
        References(setup, tmp_path).of(start, states[3])


def recorded(programs, monkeypatch):
    """The names of what updates ask for, in order: filled in while they do."""
    asked = []

    def record(name, function):
        def call(*args, **kwargs):
            asked.append(name)
            return function(*args, **kwargs)

        return call

    batching, step = programs.batching, programs.step
    monkeypatch.setattr(batching, "prepare", record("prepare", batching.prepare))
    monkeypatch.setattr(batching, "pack", record("pack", batching.pack))
    monkeypatch.setattr(programs, "step", lambda phase: record("train", step(phase)))
    return asked


@pytest.mark.slow
def test_updates_are_those_of_a_loop_over_unpacked_rows(monkeypatch):
    """By hand: all is scored once, each epoch's minibatches are prepared and stepped on, and one step is counted.

    The device is asked for all batches before the first update.
    """
    smooth = dataclasses.replace(tiny_run.config().optimizer, learning_rate=0.01, eps=1.0)
    shaping = pj.KLPenalty(0.5)
    phase = pj.Phase(
        "updates", 2, objective=KL, reward_shaping=shaping, reference=pj.PhaseStart(), epochs=2, minibatches=2
    )
    run, state, _ = tiny_run.begin(config((phase,), optimizer=smooth))
    (phase,), clock, before = run.setup.phases, StepClock(), jax.tree.map(jnp.copy, state)
    sampling_key, preparing_key = run.programs.step_keys(state.rng, 0)
    rollouts = run.worker.verify(run.worker.sample(state.params, phase, sampling_key, clock), 1).responses.rollouts
    asked, open_annotations = recorded(run.programs, monkeypatch), []

    @contextlib.contextmanager
    def annotate(name):
        assert not open_annotations, f"{name} is annotated inside {open_annotations}"
        open_annotations.append(name)
        yield
        open_annotations.pop()

    monkeypatch.setattr(updates_module, "annotate", annotate)
    inputs = {"key": preparing_key, "phase_step": 0, "clock": clock}
    prepared = prepare(run.programs, phase, state, rollouts, reference=run.references.of(phase, state), **inputs)
    assert asked == ["prepare"] * 4 + ["pack"]
    state, updated = update(run.programs, phase, state, prepared)
    assert asked == ["prepare"] * 4 + ["pack", "train"] * 4
    assert len(updated.trained) == 4

    model, expected = run.setup.model, before
    score = jax.jit(pj.make_score(model))(before.params, pj.make_layout(phase)(rollouts).sequences)
    by_hand = functools.partial(pj.make_prepare(phase, 4), old_logprobs=score, ref_logprobs=score)
    step = jax.jit(pj.make_train_step(model, run.setup.optimizer(phase), phase.objective))
    seen, key = [], jax.random.fold_in(preparing_key, SHUFFLE)
    for number in range(4):
        rows = minibatch(key, number, 2, prompts=4, group_size=4)
        seen.append(sorted(set(np.asarray(rows) // 4)))
        expected, metrics = step(expected, by_hand(rollouts, rows=rows))
        expected = dataclasses.replace(expected, phase_step=expected.phase_step * 0)
        if not number:
            assert abs(metrics["train/ratio"] - 1) < 1e-5
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == [0, 1, 2, 3]
    toy.assert_close(state.params, expected.params, rtol=1e-4, atol=1e-6)
    moved = [jnp.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (state.params, before.params)), strict=True)]
    assert max(moved) > 1e-3
    assert [int(n) for n in (state.step, state.phase, state.phase_step)] == [1, 0, 1]


def test_the_order_of_groups_is_drawn_for_every_epoch():
    key = jax.random.PRNGKey(3)
    epochs = []
    for epoch in range(3):
        parts = [np.asarray(minibatch(key, 4 * epoch + part, 4, prompts=8, group_size=3)) for part in range(4)]
        assert all((rows.reshape(2, 3) % 3 == [0, 1, 2]).all() for rows in parts)
        epochs.append(np.concatenate(parts)[::3] // 3)
        assert sorted(epochs[-1]) == list(range(8))
    assert len({tuple(order) for order in epochs}) == 3


def test_metrics_mean_over_updates():
    """Metrics of tokens are averaged over all tokens. A skipped update has weight zero."""
    found = [
        {"train/tokens": 2.0, "train/skipped": 0.0, "train/ratio": 1.0, "train/loss": 1.0, "train/reward": 0.1},
        {"train/tokens": 0.0, "train/skipped": 1.0, "train/ratio": 0.0, "train/loss": 0.0, "train/reward": 0.1},
        {"train/tokens": 6.0, "train/skipped": 0.0, "train/ratio": 2.0, "train/loss": 5.0, "train/reward": 0.1},
    ]
    joined = mean_over_updates([{name: jnp.float32(value) for name, value in metrics.items()} for metrics in found])
    expected = {"tokens": 8.0, "skipped": 1.0, "ratio": 1.75, "loss": 2.0, "reward": np.float32(0.1)}
    assert {name: float(value) for name, value in joined.items()} == {f"train/{n}": v for n, v in expected.items()}


@pytest.mark.slow
def test_it_resumes_bit_for_bit_with_the_same_references(whole, tmp_path, setup):
    for at in (1, 2):  # in the first phase, then in the second, whose reference is then read from a checkpoint
        with pytest.raises(Died), dies_at(config(), at):
            run(config(), tmp_path, console=tiny_run.quiet())
    run(config(), tmp_path, console=tiny_run.quiet())
    assert timeless(tmp_path) == timeless(whole)
    toy.assert_same_bits(*(state_at(workdir, setup, 4) for workdir in (tmp_path, whole)))
