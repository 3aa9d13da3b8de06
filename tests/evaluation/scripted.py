"""An engine with scripted responses, and evaluations with it."""

import dataclasses

import numpy as np
import tiny_run

from prerl_jax import Rollouts
from prerl_jax.config import AlignmentSpec
from prerl_jax.evaluation.evaluate import evaluate
from prerl_jax.rollout.engine import Sampled
from prerl_jax.trainer.setup import set_up
from prerl_jax.verify import InProcessVerifier

LENGTH = 32


def response(example, index, sample):
    """The responses of the engine below: even samples are right, odd ones wrong, and those of problem 2 truncated."""
    if sample % 2 == 0:
        return f"wait\n#{example.problem.answer}" if index % 2 else f"#{example.problem.answer}"
    return "1" * LENGTH if index == 2 else "wait wait\n#"


class Scripted:
    """An engine that answers by the prompts' ids, the problems, and their first samples' numbers, and keeps both."""

    def __init__(self, setup):
        self.setup, self.group_size = setup, setup.evaluation_calls.group_size
        self.ids, self.first, self.keys = [], [], []

    def sample(self, params, prompts, key, on_complete=None):
        ids, first = prompts.ids.tolist(), prompts.first_sample.tolist()
        self.ids.append(ids)
        self.first.append(first)
        self.keys.append(np.asarray(key).tolist())
        samples = [(i, n + j) for i, n in zip(ids, first, strict=True) for j in range(self.group_size)]
        texts = [response(self.setup.evaluation[i], i, j) for i, j in samples]
        tokens = np.zeros((len(texts), LENGTH), np.int32)
        lengths = np.zeros(len(texts), np.int64)
        for row, text in enumerate(texts):
            found = self.setup.tokenizer(text, add_special_tokens=False)["input_ids"]
            found = [*found, self.setup.stop_tokens[0]][:LENGTH]
            tokens[row, : len(found)], lengths[row] = found, len(found)
        on_complete(np.arange(len(texts)), tokens, lengths)
        prompt, mask = (np.repeat(x, self.group_size, axis=0) for x in (prompts.prompt, prompts.prompt_mask))
        chosen = np.arange(LENGTH) < lengths[:, None]
        rewards, logprobs = np.zeros(len(texts), np.float32), np.zeros(chosen.shape, np.float32)
        return Sampled(Rollouts(prompt, mask, tokens, chosen, rewards, logprobs), ())


def evaluated_with(setup, engine, verify=None, params=None):
    """The metrics of an evaluation of a setup with an engine."""
    return evaluate(
        engine,
        params,
        setup.evaluation,
        setup.config.evaluation,
        setup.evaluation_calls,
        tokens=setup.tokens,
        mesh=setup.mesh,
        share=setup.share,
        verify=verify or InProcessVerifier(setup.config.data.verifier),
        unknown_limit=setup.config.data.unknown_limit,
    )


def evaluated(**fields):
    """(metrics, the engine) of an evaluation of a config."""
    setup = set_up(dataclasses.replace(tiny_run.config(), alignment=AlignmentSpec(), **fields))
    engine = Scripted(setup)
    return evaluated_with(setup, engine), engine


def sampling(prompts, group_size=1):
    """With phases that allow groups of one."""
    rows = dataclasses.replace(tiny_run.config().sampling, prompts_per_step=prompts, group_size=group_size)
    advantage = tuple(
        dataclasses.replace(phase, advantage=tiny_run.AgainstHalf()) for phase in tiny_run.config().phases
    )
    return {"sampling": rows, "phases": advantage}


def problems(count, limit=None, samples=2):
    config = tiny_run.config()
    data = dataclasses.replace(config.data, evaluation=dataclasses.replace(config.data.evaluation, count=count))
    return {"data": data, "evaluation": dataclasses.replace(config.evaluation, limit=limit, samples=samples)}
