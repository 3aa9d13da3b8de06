"""A whole step of the lab beside TRL's GRPOTrainer, and a warm-up update beside the passes of the published code.

    python benchmarks/dsrl_step.py [--quick] [--cases trl lab smollm2] [--threads 2] [--repetitions 9]

trl: our training loop samples, verifies, prepares and updates as in a run, and writes its metrics. TRL's GRPOTrainer
has the same checkpoint, the same 24 prompts with 8 responses each, the same limits and verifier, float32, temperature
1, one update a step and no KL term; it logs and saves nothing. Both run in one process, in turns: TRL's step, our
warm-up step, our RL step. The learning rate is 1e-6, so that the policy, and with it the lengths of responses, hardly
change.

lab, smollm2: one warm-up update (NSR-PreRL) on given rollouts. Ours computes the negative samples in P(y). The
published code (arXiv 2604.14142; verl's dp_actor and ray_trainer) computes the log-probabilities of all samples in
P(y|x) and in P(y), then forward and backward passes in both spaces, and adds the loss of P(y|x) times 0 to that of P(y)
on the negatives. Both are built from our own kernels, on packed rows; the published scripts remove padding, too. The
lab's rollouts are sampled from its model. At SmolLM2's size they are random tokens, and half of each group is right.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import models
import numpy as np
import optax
from timing import Row, interleaved, report

import prerl_jax as pj
from prerl_jax.config import AlignmentSpec, TrainConfig
from prerl_jax.config.io import load_config
from prerl_jax.core.types import Array, Batch, Params, Rollouts, TrainState
from prerl_jax.data import make_batches
from prerl_jax.models.decoder import Decoder
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.goodput import Goodput
from prerl_jax.runtime.memory import keep_freed_memory
from prerl_jax.runtime.metrics import MetricsWriter, read_metrics
from prerl_jax.runtime.profile import Profile
from prerl_jax.runtime.state import create_state
from prerl_jax.trainer.guards import GuardState
from prerl_jax.trainer.loop import Run, train_step
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.references import References
from prerl_jax.trainer.reporting import Reporter
from prerl_jax.trainer.rollouts import RolloutWorker
from prerl_jax.trainer.setup import Setup, set_up
from prerl_jax.trainer.timing import StepClock
from prerl_jax.trainer.verifiers import Verifiers
from prerl_jax.verify import InProcessVerifier

RATE, DECAY, CLIP, GROUP = 1e-6, 0.01, 1.0, 8
KINDS = ("warmup", "rl")
WARMUP = 3
"""Rounds before the measured ones; compilation falls into them."""


def lab(prompts: int, steps: int, kind: str) -> TrainConfig:
    """The lab's config with `prompts` problems, all of which are in every step, for `steps` steps of one of KINDS."""
    config = load_config("lab")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, train=dataclasses.replace(config.data.train, count=prompts)),
        phases=(pj.dsrl(warmup=steps, total=2 * steps)[KINDS.index(kind)],),
        sampling=dataclasses.replace(config.sampling, prompts_per_step=prompts, group_size=GROUP),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=RATE, weight_decay=DECAY, max_grad_norm=CLIP),
        alignment=AlignmentSpec(),
        evaluation=dataclasses.replace(config.evaluation, every=0),
        checkpoints=dataclasses.replace(config.checkpoints, every=0, best=None),
    )


def begin(setup: Setup, folder: Path, writer: MetricsWriter, checkpoints: Checkpoints) -> tuple[Run, TrainState]:
    """(a run that writes into a folder, its first state)."""
    config, tx = setup.config, setup.optimizer(setup.phases[0])
    verifier = InProcessVerifier(config.data.verifier)
    state = create_state(setup.load_params(), tx, setup.mesh, config.seed)
    run = Run(
        programs=Programs(setup),
        batches=make_batches(len(setup.train), batch=config.sampling.prompts_per_step, seed=config.seed),
        verifiers=Verifiers(verifier, verifier),
        references=References(setup, folder / "checkpoints"),
        guards=GuardState(),
        checkpoints=checkpoints,
        reporter=Reporter(setup, writer, None, Goodput()),
        profile=Profile(folder / "profile", None),
        begin=lambda: state,
    )
    return run, state


@contextlib.contextmanager
def stepping(setup: Setup) -> Iterator[Callable[[], dict[str, float]]]:
    """Yields a function that runs the training loop's next step, waits for its metrics to be written, and returns them.

    The phase has more steps than are run, so no step saves a checkpoint.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(MetricsWriter(folder)) as writer,
        contextlib.closing(Checkpoints(f"{folder}/checkpoints", keep_last=1, best=None)) as checkpoints,
    ):
        run, state = begin(setup, Path(folder), writer, checkpoints)
        place = Position.of(state)
        with run.reporter:

            def step() -> dict[str, float]:
                nonlocal state, place
                state, place = train_step(run, state, place)
                run.reporter.flush()
                return read_metrics(folder)[-1]

            yield step


def against_trl(options: argparse.Namespace) -> list[Row]:
    """The row: our steps per second over TRL's."""
    rounds, target = WARMUP + options.repetitions, {"warmup": "", "rl": ">= 1.5"}
    assemblies = {kind: set_up(lab(4 if options.quick else 24, rounds + 1, kind)) for kind in KINDS}
    seconds, scalars = {"warmup": [], "rl": []}, {"warmup": [], "rl": []}
    try:
        import trl_peer
    except ModuleNotFoundError as error:
        return [Row(f"dsrl_step/{kind}/trl", None, bound, f"not measured: {error}") for kind, bound in target.items()]
    with contextlib.ExitStack() as stack:
        steps = {kind: stack.enter_context(stepping(setup)) for kind, setup in assemblies.items()}

        def ours() -> None:
            for kind, step in steps.items():
                start = time.perf_counter()
                done = step()
                seconds[kind].append(time.perf_counter() - start)
                scalars[kind].append(done)

        theirs, means = trl_peer.grpo_steps(assemblies["rl"], rounds, options.threads, ours)
    trl, rows = statistics.median(theirs[WARMUP:]), []
    for kind, bound in target.items():
        median = statistics.median(seconds[kind][WARMUP:])
        length, reward = (np.mean([s[f"train/{name}"] for s in scalars[kind]]) for name in ("length", "reward"))
        note = (
            f"{median:.3f} s a step, TRL's GRPO {trl:.3f} s; tokens a response {length:.1f} and {means['length']:.1f}, "
            f"rewards {reward:.2f} and {means['reward']:.2f}"
        )
        rows.append(Row(f"dsrl_step/{kind}/trl", trl / median, bound, note))
    return rows


def lab_rollouts(quick: bool) -> tuple[Decoder, Params, Rollouts, int]:
    """(the lab's model, its parameters, verified rollouts of one step, the prefix of P(y))."""
    setup = set_up(lab(4 if quick else 24, 1, "warmup"))
    config, programs, params = setup.config, Programs(setup), setup.load_params()
    batches = make_batches(len(setup.train), batch=config.sampling.prompts_per_step, seed=config.seed)
    worker = RolloutWorker(programs, batches, InProcessVerifier(config.data.verifier), lambda: None)
    key, _ = programs.step_keys(jax.random.PRNGKey(config.seed), 0)
    pending = worker.sample(params, setup.phases[0], key, StepClock())
    return setup.model, params, worker.verify(pending, 1).responses.rollouts, setup.phases[0].space.prefix


def smollm2_rollouts() -> tuple[Decoder, Params, Rollouts, int]:
    """SmolLM2-135M with 4 x 8 random rollouts of 128 + 32 tokens, every other one right."""
    config, params = models.smollm2()
    return models.trained(config), params, models.random_rollouts(config, 4, GROUP, 128, 32), config.bos_token_id


def packed(model: Decoder, rollouts: Rollouts, phase: pj.Phase, every: bool) -> Batch:
    """The phase's batch in packed rows. With `every` it holds all samples, also those without a weight."""
    batch = jax.device_get(jax.jit(pj.make_prepare(phase, GROUP))(rollouts))
    chosen = dataclasses.replace(batch, weights=batch.sequences.mask * 1.0) if every else batch
    groups = pj.plan_bins(chosen, pj.Reinforce() if every else phase.objective)
    return jax.device_put(pj.pack(batch, groups, pj.bucket(len(groups))))


def our_update(model: Decoder, params: Params, batch: Batch, objective: pj.Objective) -> Callable[[], object]:
    """A function that runs one train step."""
    tx = pj.adamw(RATE, weight_decay=DECAY, max_grad_norm=CLIP)
    step = jax.jit(pj.make_train_step(model, tx, objective), donate_argnums=0)
    box = [pj.init_state(jax.tree.map(jnp.array, params), tx, jax.random.key(0))]

    def call() -> object:
        box[0], metrics = step(box[0], batch)
        return metrics

    return call


def published_update(model: Decoder, params: Params, pre: Batch, post: Batch, objectives: tuple) -> Callable:
    """A function that scores all samples in both spaces, then computes the gradient of both losses and updates."""
    tx, score = pj.adamw(RATE, weight_decay=DECAY, max_grad_norm=CLIP), jax.jit(pj.make_score(model))
    losses = [pj.make_loss(model, objective) for objective in objectives]

    def update(params: Params, moments: optax.OptState, pre: Batch, post: Batch, zero: Array):
        def loss(params: Params) -> Array:
            return losses[0](params, pre)[0] + zero * losses[1](params, post)[0]

        value, gradient = jax.value_and_grad(loss)(params)
        updates, moments = tx.update(gradient, moments, params, phase_step=jnp.int32(0))
        return optax.apply_updates(params, updates), moments, value

    run = jax.jit(update, donate_argnums=(0, 1))
    box = [jax.tree.map(jnp.array, params)]
    box.append(tx.init(box[0]))

    def call() -> Array:
        scored = [dataclasses.replace(b, old_logprobs=score(box[0], b.sequences)) for b in (pre, post)]
        *box[:], loss = run(*box, *scored, jnp.float32(0.0))
        return loss

    return call


def against_published(name: str, options: argparse.Namespace) -> Row:
    """The row: the time of our update over that of the published passes."""
    lab_model = name == "lab"
    model, params, rollouts, prefix = lab_rollouts(options.quick) if lab_model else smollm2_rollouts()
    warmup, rl = pj.nsr_prerl(steps=1, prefix=prefix)[0], pj.grpo(steps=1)[0]
    batch, pre = (packed(model, rollouts, warmup, every) for every in (False, True))
    post = packed(model, rollouts, rl, every=True)
    calls = {
        "ours": our_update(model, params, batch, warmup.objective),
        "published": published_update(model, params, pre, post, (warmup.objective, rl.objective)),
    }
    seconds = interleaved(calls, options.repetitions * (5 if lab_model else 1), warmup=2)
    shapes = ["{} x {}".format(*b.weights.shape) for b in (batch, pre, post)]
    note = (
        f"{seconds['ours'] * 1e3:,.0f} ms on {shapes[0]}, published {seconds['published'] * 1e3:,.0f} ms on "
        f"{shapes[1]} and {shapes[2]}; {np.mean(rollouts.rewards):.0%} right"
    )
    return Row(f"dsrl_step/{name}/warmup_update", seconds["ours"] / seconds["published"], "<= 0.4", note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the lab alone, on 4 x 8 rows, twice")
    parser.add_argument("--cases", nargs="+", choices=("trl", "lab", "smollm2"), default=["trl", "lab", "smollm2"])
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; XLA takes the cores of the process")
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    if options.quick:
        options.cases, options.repetitions = [case for case in options.cases if case != "smollm2"], 2
    keep_freed_memory()  # of the peers, too
    found = (against_trl(options) if case == "trl" else [against_published(case, options)] for case in options.cases)
    report(row for rows in found for row in rows)


if __name__ == "__main__":
    main()
