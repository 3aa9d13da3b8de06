"""Evaluation in calls of one shape: every problem counts once, whatever the calls, with its own randomness."""

import dataclasses
import threading

import jax
import numpy as np
import pytest
import tiny_run
from scripted import Scripted, evaluated, evaluated_with, problems, sampling

from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought
from prerl_jax.config import AlignmentSpec
from prerl_jax.runtime.mesh import MeshSpec, make_mesh
from prerl_jax.trainer import meshes
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import set_up
from prerl_jax.verify import InProcessVerifier, Verified, right_or_wrong


def test_means_of_scripted_responses():
    metrics, _ = evaluated(**problems(4))
    assert metrics["eval/avg@2"] == 0.5
    assert metrics["eval/pass@2"] == 1
    assert metrics["eval/truncated"] == 1 / 8
    assert metrics["eval/maj@2"] == 1, "only right responses have an answer, and so a vote"
    assert metrics["eval/format_failures"] == 3 / 7
    assert metrics["eval/reflections"] == pytest.approx((0 + 2 + 1 + 2 + 0 + 0 + 1 + 2) / 8)
    named = {name for name in metrics if name.startswith("eval/") and not name.endswith("_stderr")}
    assert named == set(tiny_run.config().evaluation.metrics)
    assert {f"eval/thoughts/{thought.name}" for thought in THOUGHTS} <= named


def test_a_user_s_own_thoughts_are_counted():
    how = problems(4)
    thoughts = (Thought("waits", ("wait",)), Thought("says", ("#", r"^wait")))
    how["evaluation"] = dataclasses.replace(how["evaluation"], thoughts=thoughts)
    metrics, _ = evaluated(**how)
    found = {name: value for name, value in metrics.items() if "thoughts" in name}
    # seven of the eight responses have a "#", and five of them begin with "wait"
    assert found == {
        "eval/thoughts/waits": pytest.approx((2 + 1 + 2 + 1 + 2) / 8),
        "eval/thoughts/says": pytest.approx((7 + 5) / 8),
    }


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        (sampling(1, 4), [[0, 1], [2, 3], [4, 0]]),
        (sampling(2, 4), [[0, 1, 2, 3], [4, 0, 1, 2]]),
        (sampling(3, 2), [[0, 1, 2], [3, 4, 0]]),
        (sampling(6, 2), [[0, 1, 2, 3, 4, 0]]),
        (sampling(11, 2), [[0, 1, 2, 3, 4]]),
        ({}, [[0, 1, 2, 3, 4]]),
    ],
    ids=["three calls", "two calls", "as in training", "not quite full", "training's would be too large", "one call"],
)
def test_the_last_call_is_filled_up_and_cut_off(fields, calls):
    metrics, engine = evaluated(**problems(5), **fields)
    assert engine.ids == calls
    assert len({tuple(key) for key in engine.keys}) == 1, "what tells samples apart is their problem, not their call"
    assert metrics == evaluated(**problems(5))[0]


def test_responses_are_verified_while_others_are_sampled():
    """The first verdict waits for the second call of the engine."""
    fields = {"alignment": AlignmentSpec(), **problems(5), **sampling(2, 4)}
    setup = set_up(dataclasses.replace(tiny_run.config(), **fields))
    plain, second = InProcessVerifier(setup.config.data.verifier), threading.Event()

    class Telling(Scripted):
        def sample(self, *given, **more):
            if self.ids:
                second.set()
            return super().sample(*given, **more)

    def verify(*asked):
        assert threading.current_thread() is not threading.main_thread()
        assert second.wait(timeout=60)
        return plain(*asked)

    engine = Telling(setup)
    assert evaluated_with(setup, engine, verify) == evaluated(**problems(5))[0]
    assert len(engine.ids) == 2


def test_an_error_between_two_calls_leaves_no_thread_behind():
    fields = {"alignment": AlignmentSpec(), **problems(5), **sampling(2, 4)}
    setup, waiting = set_up(dataclasses.replace(tiny_run.config(), **fields)), threading.Event()

    class Failing(Scripted):
        def sample(self, *given, **more):
            if self.ids:
                raise RuntimeError("the second call fails")
            return super().sample(*given, **more)

    def verify(problems, responses, truncated):
        assert waiting.wait(timeout=60)
        return Verified([right_or_wrong(False)] * len(problems), np.zeros(len(problems), bool))

    with pytest.raises(RuntimeError, match="the second call fails"):  # though the verifier still waits
        evaluated_with(setup, Failing(setup), verify)
    waiting.set()
    for thread in threading.enumerate():
        if thread.name.startswith("verification"):
            thread.join(timeout=60)
            assert not thread.is_alive()


def test_only_the_first_problems_up_to_the_limit():
    metrics, engine = evaluated(**problems(5, limit=3))
    assert engine.ids == [[0, 1, 2]]
    assert metrics["eval/truncated"] == pytest.approx(1 / 6)


OF_A_SOURCE = (("avg@2", 0.5), ("pass@2", 1), ("maj@2", 1))


@dataclasses.dataclass(frozen=True)
class OfThreeSources:
    """Problems of the tiny run's source, of which every third is of another."""

    count: int

    def load(self):
        problems, dropped = dataclasses.replace(tiny_run.config().data.evaluation, count=self.count).load()
        return tuple(dataclasses.replace(p, source="abc"[i % 3]) for i, p in enumerate(problems)), dropped


@pytest.mark.parametrize(("limit", "asked"), [(None, [0, 1, 2, 3, 4]), (1, [0, 1, 2])])
def test_the_accuracy_of_each_source_and_the_limit_of_each(limit, asked):
    how = problems(5, limit=limit)
    how["data"] = dataclasses.replace(how["data"], evaluation=OfThreeSources(5))
    metrics, engine = evaluated(**how)
    assert engine.ids == [asked]
    found = {name: value for name, value in metrics.items() if name.count("/") == 2 and "thoughts" not in name}
    expected = {f"eval/{source}/{what}": value for source in "abc" for what, value in OF_A_SOURCE}
    assert found == expected | ({f"eval/{source}/avg@2_stderr": 0 for source in "ab"} if limit is None else {})


@pytest.fixture
def four_parts(monkeypatch):
    """A batch is split into four."""
    monkeypatch.setattr(meshes, "make_mesh", lambda *_: make_mesh(MeshSpec(tensor=2), jax.devices()))


def test_calls_divide_over_the_mesh(four_parts):
    metrics, engine = evaluated(**problems(5))
    assert engine.ids == [[0, 1, 2, 3], [4, 0, 1, 2]]
    assert metrics["eval/avg@2"] == 0.5
    assert metrics["eval/truncated"] == pytest.approx(1 / 10)


def test_more_samples_than_rows_are_asked_for_in_rounds():
    """At most 4 rows per call: 6 samples of a problem are two rounds of 3."""
    whole, _ = evaluated(**problems(3, samples=6))
    metrics, engine = evaluated(**problems(3, samples=6), **sampling(1, 4))
    assert (engine.group_size, engine.ids) == (3, [[0], [0], [1], [1], [2], [2]])
    assert engine.first == [[0], [3]] * 3
    assert metrics == whole
    assert metrics["eval/avg@6"] == 0.5
    assert metrics["eval/truncated"] == pytest.approx(3 / 18)


def test_rounds_on_a_mesh(four_parts):
    """4 parts of 4 rows are one row each: every sample is a round."""
    metrics, engine = evaluated(**problems(3, samples=2), **sampling(4))
    assert (engine.group_size, engine.ids) == (1, [[0, 0, 1, 1], [2, 2, 0, 0]])
    assert engine.first == [[0, 1, 0, 1]] * 2
    assert metrics["eval/avg@2"] == 0.5
    assert metrics["eval/pass@2"] == 1


@pytest.mark.slow
def test_what_is_sampled_does_not_depend_on_the_calls():
    """Six samples of a problem in calls of a training step's shape, of one group of three, and all at once."""
    said = {}
    for name, how in {"training's": sampling(2, 2), "rounds": sampling(1, 4), "at once": sampling(3, 8)}.items():
        fields = {"alignment": AlignmentSpec(), **problems(2, samples=6), **how}
        setup = set_up(dataclasses.replace(tiny_run.config(), **fields), jax.devices()[:1])
        engine, parts = Programs(setup).evaluation_engine, []

        class Kept:
            def sample(self, *given, engine=engine, parts=parts):
                sampled = engine.sample(*given)
                parts.append(sampled.rollouts.response)
                return sampled

        evaluated_with(setup, Kept(), params=setup.load_params())
        said[name] = np.concatenate(parts)[:12]
    assert len(np.unique(said["at once"], axis=0)) > 6
    for found in said.values():
        np.testing.assert_array_equal(found, said["at once"])
