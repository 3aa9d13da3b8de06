"""Evaluation on held-out problems: k responses each, with the same randomness every time."""

from __future__ import annotations

import jax
import numpy as np

from prerl_jax.analysis.passk import evaluation_metrics
from prerl_jax.analysis.thoughts import count_matches, count_thoughts
from prerl_jax.core.types import Params, Prompts
from prerl_jax.data import left_pad
from prerl_jax.runtime.distributed import together
from prerl_jax.runtime.mesh import all_rows, everywhere
from prerl_jax.trainer.assembly import evaluation_shape
from prerl_jax.trainer.collect import collect, texts, truncated
from prerl_jax.trainer.programs import Programs
from prerl_jax.verify import InProcess, Pool


def evaluate(programs: Programs, params: Params, verify: Pool | InProcess | None = None) -> dict[str, float]:
    """The `eval/` metrics of these parameters, and how many verdicts were late; the same on every process.

    A sample's randomness comes from (evaluation.seed, problem, sample), whatever the calls that problems are asked in,
    so two evaluations differ by the policy alone.
    Without `verify` the config's verifier is called in this process.
    """
    assembly, spec = programs.assembly, programs.assembly.config.evaluation
    examples, processes = assembly.evaluation, jax.process_count()
    group_size, size = evaluation_shape(assembly)
    rounds = spec.samples // group_size
    key = everywhere(assembly.mesh, jax.random.PRNGKey(spec.seed))  # placed as in training: one program
    verify = verify or InProcess(assembly.config.data.verifier)
    columns = []
    for start in range(0, len(examples) * rounds, size):
        # A problem is asked `rounds` times. The last call is filled up from the front: one shape, one program; what is
        # too many is cut off again below.
        asked = np.arange(start, start + size).reshape(processes, -1)[jax.process_index()] % (len(examples) * rounds)
        chosen = [examples[i // rounds] for i in asked]
        prompts = left_pad(chosen, assembly.config.data.max_prompt_tokens, assembly.pad_token)
        ids, first = (asked // rounds).astype(np.int32), (asked % rounds * group_size).astype(np.int32)
        prompts = Prompts(prompts.prompt, prompts.prompt_mask, ids, first)
        rollouts = collect(programs.engine(None), params, prompts, key, assembly.mesh)
        with together("verification in an evaluation"):
            lengths = rollouts.response_mask.sum(axis=1)
            responses = texts(rollouts.response, lengths, assembly.decode)
            cut = truncated(rollouts.response, lengths, assembly.stop_tokens)
            problems = [example.problem for example in chosen for _ in range(group_size)]
            verified = verify(problems, responses, cut)
            reflections = count_matches(spec.reflection, responses)
            thoughts = count_thoughts(responses, spec.thoughts)
            columns.append([verified.rewards, lengths, cut, reflections, *thoughts.values(), verified.late])
        columns[-1] = all_rows(np.stack(columns[-1], axis=1).astype(np.float32))
    table = np.concatenate(columns)[: len(examples) * spec.samples].reshape(len(examples), spec.samples, -1)
    *measured, late = np.moveaxis(table, 2, 0)
    metrics = evaluation_metrics(*measured[:4])
    for thought, counts in zip(spec.thoughts, measured[4:], strict=True):
        metrics[f"eval/thoughts/{thought.name}"] = float(counts.mean())
    return metrics | {"time/late_verdicts_of_evaluation": float(late.sum())}
