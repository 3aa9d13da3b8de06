"""References and several updates a step, in a run: what is counted, what is held against what, and that it resumes."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import toy
from tiny_run import Died, dying_engine, lines, state_at, timeless

import prerl_jax as pj
from prerl_jax.config import AlignmentSpec
from prerl_jax.data import make_batches
from prerl_jax.runtime.metrics import MetricsWriter
from prerl_jax.runtime.state import create_state
from prerl_jax.trainer import loop as loop_module
from prerl_jax.trainer import times as times_module
from prerl_jax.trainer.batching import SHUFFLE, minibatch, over_updates
from prerl_jax.trainer.loop import Loop, Run
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.references import References
from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.source import Source
from prerl_jax.trainer.start import run

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


def begin(config):
    setup = set_up(config)
    state = create_state(setup.load_params(), setup.optimizer(setup.phases[0]), setup.mesh, config.seed)
    batches = make_batches(len(setup.train), batch=config.sampling.prompts_per_step, seed=config.seed)
    return Run(Programs(setup), state, batches, MetricsWriter("", enabled=False), None, None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        run(config(), workdir, console=tiny_run.quiet())
    return workdir


def test_what_is_measured(whole):
    first, second, third, fourth = lines(whole)[1:]
    assert [r["phase"] for r in (first, second, third, fourth)] == ["kl", "kl", "reward", "reward"]
    assert first["train/reference_kl"] < 1e-9 < second["train/reference_kl"], "the first step is held against itself"
    assert third["train/reference_kl"] > 1e-9, "and so is the third, but for its own earlier updates"
    assert abs(first["train/ratio"] - 1) < 1e-6
    for record in (third, fourth):
        assert abs(record["train/ratio"] - 1) > 1e-5
        assert record["train/skipped"] == 0


def test_references_are_of_the_steps_that_they_name(whole, setup, tmp_path):
    """Read back in the middle of the second phase; and where there is nothing to read."""
    initial, start = PHASES
    states = {step: state_at(whole, setup, step) for step in (2, 3)}
    of = References(setup, whole / "checkpoints").of
    toy.assert_same_bits(of(start, states[3]), states[2].params)
    assert of(tiny_run.config().phases[1], states[3]) is None
    toy.assert_same_bits(of(initial, states[3]), setup.load_params())
    begun = References(setup, tmp_path, Source(whole, 2)).of(initial, states[3])
    toy.assert_same_bits(begun, states[2].params)
    toy.assert_same_bits(References(setup, tmp_path).of(start, states[2]), states[2].params)
    with pytest.raises(ValueError, match=r"'reward' is held against PhaseStart\(\): there are no checkpoints"):
        References(setup, tmp_path).of(start, states[3])


def in_order(run, monkeypatch):
    """What updates ask for, each with the names of the step's marks at that time: filled in while they do."""
    asked, marks = [], {}

    def told(name, function):
        def call(*args, **kwargs):
            asked.append((name, set(marks)))
            return function(*args, **kwargs)

        return call

    def begun(step, *given):
        nonlocal marks
        marks = step.times.marks

    batching, programs = run.programs.batching, run.programs
    monkeypatch.setattr(batching, "prepare", told("prepare", batching.prepare))
    monkeypatch.setattr(batching, "pack", told("pack", batching.pack))
    step = programs.step
    monkeypatch.setattr(programs, "step", lambda phase: told("train", step(phase)))
    monkeypatch.setattr(times_module, "start_gather", told("gather", times_module.start_gather))
    sample = loop_module.sample
    monkeypatch.setattr(loop_module, "sample", lambda run, step, check: (begun(step), sample(run, step, check)))
    return asked


def test_updates_are_those_of_a_loop_over_unpacked_rows(monkeypatch):
    """By hand: all is scored once, each epoch's minibatches are prepared and stepped on, and one step is counted.

    The device is asked for all batches before the first update, and what the processes tell each other comes last.
    """
    smooth = dataclasses.replace(tiny_run.config().optimizer, learning_rate=0.01, eps=1.0)
    held = pj.Phase(
        "held", 2, objective=KL, reward_shaping=pj.KLPenalty(0.5), reference=pj.PhaseStart(), epochs=2, minibatches=2
    )
    ours, theirs = (begin(config((held,), optimizer=smooth)) for _ in range(2))
    asked = in_order(ours, monkeypatch)
    with Loop(ours) as loop:
        loop.conclude(step := loop.step())
    assert [name for name, _ in asked] == ["prepare"] * 4 + ["pack", "train"] * 4 + ["gather"]
    assert all({"prepared", "aligned"} <= marks for name, marks in asked if name == "train")
    assert step.scalars["time/align"] == 0
    model, state = theirs.setup.model, theirs.state
    begun = jax.tree.map(jnp.copy, state.params)
    score = jax.jit(pj.make_score(model))(begun, pj.make_layout(held)(step.rollouts).sequences)
    prepare = functools.partial(pj.make_prepare(held, 4), old_logprobs=score, ref_logprobs=score)
    update = jax.jit(pj.make_train_step(model, theirs.setup.optimizer(held), held.objective))
    seen, key = [], jax.random.fold_in(step.key, SHUFFLE)
    for number in range(4):
        rows = minibatch(key, number, 2, prompts=4, group_size=4)
        seen.append(sorted(set(np.asarray(rows) // 4)))
        state, metrics = update(state, prepare(step.rollouts, rows=rows))
        state = dataclasses.replace(state, phase_step=state.phase_step * 0)
        if not number:
            assert abs(metrics["train/ratio"] - 1) < 1e-5
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == [0, 1, 2, 3]
    toy.assert_close(ours.state.params, state.params, rtol=1e-4, atol=1e-6)
    moved = max(jnp.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (state.params, begun)), strict=True))
    assert moved > 1e-3
    assert [int(n) for n in (ours.state.step, ours.state.phase, ours.state.phase_step)] == [1, 0, 1]


def test_the_evaluation_of_the_base_is_no_part_of_the_first_step(monkeypatch):
    run, ended = begin(config()), []
    with Loop(run) as loop:
        monkeypatch.setattr(loop, "evaluate", lambda: ended.append(time.perf_counter()) or {})
        loop.begin()
        assert loop._free >= ended[0]


def test_the_order_of_groups_is_drawn_for_every_epoch():
    key = jax.random.PRNGKey(3)
    epochs = []
    for epoch in range(3):
        parts = [np.asarray(minibatch(key, 4 * epoch + part, 4, prompts=8, group_size=3)) for part in range(4)]
        assert all((rows.reshape(2, 3) % 3 == [0, 1, 2]).all() for rows in parts)
        epochs.append(np.concatenate(parts)[::3] // 3)
        assert sorted(epochs[-1]) == list(range(8))
    assert len({tuple(order) for order in epochs}) == 3


def test_metrics_over_updates():
    """Of tokens their mean over all of them, an update that was skipped counting for nothing."""
    found = [
        {"train/tokens": 2.0, "train/skipped": 0.0, "train/ratio": 1.0, "train/loss": 1.0, "train/reward": 0.1},
        {"train/tokens": 0.0, "train/skipped": 1.0, "train/ratio": 0.0, "train/loss": 0.0, "train/reward": 0.1},
        {"train/tokens": 6.0, "train/skipped": 0.0, "train/ratio": 2.0, "train/loss": 5.0, "train/reward": 0.1},
    ]
    joined = over_updates([{name: jnp.float32(value) for name, value in metrics.items()} for metrics in found])
    expected = {"tokens": 8.0, "skipped": 1.0, "ratio": 1.75, "loss": 2.0, "reward": np.float32(0.1)}
    assert {name: float(value) for name, value in joined.items()} == {f"train/{n}": v for n, v in expected.items()}


def test_it_resumes_bit_for_bit_with_the_same_references(whole, tmp_path, setup):
    for at in (1, 2):  # in the first phase, then in the second, whose reference is then read from a checkpoint
        with pytest.raises(Died):
            run(config(), tmp_path, make_engine=dying_engine(config(), at), console=tiny_run.quiet())
    run(config(), tmp_path, console=tiny_run.quiet())
    assert timeless(tmp_path) == timeless(whole)
    toy.assert_same_bits(*(state_at(workdir, setup, 4) for workdir in (tmp_path, whole)))
