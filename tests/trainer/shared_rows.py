"""Steps of the tiny run on this process's part of a mesh; prints what they say, as JSON.

Run as a program, `python shared_rows.py DATA FSDP TENSOR STEPS`, it is one of several processes. Only the first process
of a row group may verify: the verifiers of the others raise.
"""

import dataclasses
import json
import sys

import jax
import numpy as np
import tiny_run

from prerl_jax import dsrl
from prerl_jax.config import AlignmentSpec
from prerl_jax.runtime.distributed import initialize
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.trainer.loop import evaluate_policy
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.verifiers import Verifiers


def config(mesh: MeshSpec):
    """The tiny run on a mesh: a step with resampling, then one whose rows are scored and minibatched."""
    first, second = dsrl(warmup=1, total=3)
    phases = (
        dataclasses.replace(first, max_resamples=1),
        dataclasses.replace(second, epochs=2, minibatches=2),
    )
    return dataclasses.replace(tiny_run.config(), phases=phases, alignment=AlignmentSpec(), mesh=mesh)


def refuse(problems, texts, truncated):
    raise AssertionError(f"process {jax.process_index()} verifies {len(texts)} responses of its row group again")


def said(mesh: MeshSpec, steps: int, devices=None):
    """(the metrics of each step, and of an evaluation after two steps; responses of this process with rewards)."""
    run, state, lines = tiny_run.begin(config(mesh), devices)
    if not run.setup.share.leads:
        run = dataclasses.replace(run, verifiers=Verifiers(refuse, refuse))
    with run.reporter:
        place = Position.of(state)
        for _ in range(steps):
            state, place = tiny_run.train_step(run, state, place)
        run.reporter.flush()
    metrics = lines.metrics + ([evaluate_policy(run, state).metrics] if steps == 2 else [])
    metrics = [{name: value for name, value in found.items() if "time/" not in name} for found in metrics]
    rows = [[row["prompt"], row["response"], row["reward"]] for step in lines.responses for row in step]
    return metrics, rows


if __name__ == "__main__":
    initialize()
    metrics, rows = said(MeshSpec(*map(int, sys.argv[1:4])), int(sys.argv[4]))
    print("SAID", json.dumps([metrics, rows], default=np.ndarray.tolist))
