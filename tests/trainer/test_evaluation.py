"""Evaluation in calls of one shape: every problem counts once, whatever the calls, with its own randomness."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_run

from prerl_jax import Rollouts
from prerl_jax.runtime.mesh import MeshSpec, make_mesh
from prerl_jax.trainer import assembly as assembly_module
from prerl_jax.trainer.assembly import assemble
from prerl_jax.trainer.evaluation import evaluate
from prerl_jax.trainer.programs import Programs

LENGTH = 32


def responses(example, index):
    """What the engine below says to problem `index`: two samples, by turns right or not, one of them cut short."""
    answer = example.problem.answer
    return [f"wait\n#{answer}" if index % 2 else f"#{answer}", "1" * LENGTH if index == 2 else "wait wait\n#"]


class Scripted:
    """An engine that answers by the prompts' ids, and keeps them."""

    def __init__(self, assembly):
        self.assembly, self.ids, self.keys = assembly, [], []

    def __call__(self, params, prompts, key):
        ids = np.asarray(prompts.ids).tolist()
        self.ids.append(ids)
        self.keys.append(np.asarray(key).tolist())
        texts = [text for i in ids for text in responses(self.assembly.evaluation[i], i)]
        tokens = np.zeros((len(texts), LENGTH), np.int32)
        lengths = np.zeros(len(texts), np.int32)
        for row, text in enumerate(texts):
            found = self.assembly.tokenizer(text, add_special_tokens=False)["input_ids"]
            found = [*found, self.assembly.stop_tokens[0]][:LENGTH]
            tokens[row, : len(found)], lengths[row] = found, len(found)
        prompt, mask = (np.repeat(np.asarray(x), 2, axis=0) for x in (prompts.prompt, prompts.prompt_mask))
        chosen = np.arange(LENGTH) < lengths[:, None]
        return Rollouts(prompt, mask, tokens, chosen, np.zeros(len(texts), np.float32), np.zeros(chosen.shape))


def evaluated(**fields):
    """(metrics, the engine) of an evaluation of a config."""
    assembly = assemble(dataclasses.replace(tiny_run.config(), alignment_every=0, **fields))
    engine = Scripted(assembly)
    return evaluate(Programs(assembly, lambda *_: engine), None), engine


def sampling(rows_per_call):
    return dataclasses.replace(tiny_run.config().sampling, rows_per_call=rows_per_call)


def problems(count, limit=None):
    config = tiny_run.config()
    data = dataclasses.replace(config.data, evaluation=dataclasses.replace(config.data.evaluation, count=count))
    return {"data": data, "evaluation": dataclasses.replace(config.evaluation, limit=limit)}


def test_means_of_scripted_responses():
    metrics, _ = evaluated(**problems(4))
    assert metrics["eval/avg@2"] == 0.5
    assert metrics["eval/pass@2"] == 1
    assert metrics["eval/truncated"] == 1 / 8
    assert metrics["eval/reflections"] == pytest.approx((0 + 2 + 1 + 2 + 0 + 0 + 1 + 2) / 8)


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"sampling": sampling(4)}, [[0, 1], [2, 3], [4, 0]]),
        ({"sampling": sampling(8)}, [[0, 1, 2, 3], [4, 0, 1, 2]]),
        ({}, [[0, 1, 2, 3, 4]]),
    ],
    ids=["three calls", "two calls", "one call"],
)
def test_the_last_call_is_filled_up_and_cut_off(fields, calls):
    metrics, engine = evaluated(**problems(5), **fields)
    assert engine.ids == calls
    assert len({tuple(key) for key in engine.keys}) == 1, "what tells samples apart is their problem, not their call"
    assert metrics == evaluated(**problems(5))[0]


def test_only_the_first_problems_up_to_the_limit():
    metrics, engine = evaluated(**problems(5, limit=3))
    assert engine.ids == [[0, 1, 2]]
    assert metrics["eval/truncated"] == pytest.approx(1 / 6)


def test_calls_divide_over_the_mesh(monkeypatch):
    """Five problems on four parts of the batch: eight in one call, three of them to fill it up."""
    monkeypatch.setattr(assembly_module, "make_mesh", lambda *_: make_mesh(MeshSpec(tensor=2), jax.devices()))
    metrics, engine = evaluated(**problems(5))
    assert engine.ids == [[0, 1, 2, 3, 4, 0, 1, 2]]
    monkeypatch.undo()
    assert metrics == evaluated(**problems(5))[0]
