"""Evaluation on held-out problems: k responses each, with the same randomness every time."""

from __future__ import annotations

import jax
import numpy as np

from prerl_jax.analysis.passk import evaluation_metrics
from prerl_jax.analysis.thoughts import count_matches
from prerl_jax.core.types import Params, Prompts
from prerl_jax.data import left_pad
from prerl_jax.runtime.mesh import all_rows, batch_shards
from prerl_jax.trainer.collect import collect, texts, truncated
from prerl_jax.trainer.programs import Programs
from prerl_jax.verify import verify_all


def evaluate(programs: Programs, params: Params) -> dict[str, float]:
    """The `eval/` metrics of these parameters; the same on every process.

    A sample's randomness comes from (evaluation.seed, problem, sample), so two evaluations differ by the policy alone.
    """
    assembly, spec = programs.assembly, programs.assembly.config.evaluation
    examples, processes = assembly.evaluation, jax.process_count()
    size = _prompts_per_call(programs)
    key = jax.random.PRNGKey(spec.seed)
    columns = []
    for start in range(0, len(examples), size):
        # The last call is filled up with problems from the front: one shape, one program. They are cut off again below.
        indices = np.arange(start, start + size).reshape(processes, -1)[jax.process_index()] % len(examples)
        chosen = [examples[i] for i in indices]
        prompts = left_pad(chosen, assembly.config.data.max_prompt_tokens, assembly.pad_token)
        prompts = Prompts(prompts.prompt, prompts.prompt_mask, indices.astype(np.int32))
        rollouts = collect(programs.engine(None), params, prompts, key, assembly.mesh)
        responses = texts(rollouts, assembly.decode)
        cut = truncated(rollouts, assembly.stop_tokens)
        problems = [example.problem for example in chosen for _ in range(spec.samples)]
        scores = verify_all(assembly.config.data.verifier, problems, responses, cut)
        lengths = rollouts.response_mask.sum(axis=1)
        reflections = count_matches(spec.reflection, responses)
        columns.append(all_rows(np.stack([scores, lengths, cut, reflections], axis=1).astype(np.float32)))
    table = np.concatenate(columns)[: len(examples) * spec.samples].reshape(len(examples), spec.samples, 4)
    return evaluation_metrics(*np.moveaxis(table, 2, 0))


def _prompts_per_call(programs: Programs) -> int:
    """Problems a call: as many as keep its rows at those of a training call, a multiple of the batch's shards."""
    config = programs.assembly.config
    rows = config.sampling.rows_per_call or config.sampling.prompts * config.sampling.group_size
    shards = batch_shards(programs.assembly.mesh)
    wanted = min(rows // config.evaluation.samples, len(programs.assembly.evaluation))
    return max(1, -(-wanted // shards)) * shards
