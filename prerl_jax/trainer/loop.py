"""The training loop: sample, verify, prepare, update, evaluate, guard, save.

Every stage takes values and returns values. Three things overlap, each inside one stage or one scheduler:

- responses are verified while others are sampled (`evaluation.verification`);
- batches are packed on the host while the device computes the previous update (`updates`);
- metrics and completions are written while the device computes (`reporting`).

The main thread starts all device programs, in the same order on all processes. It does not wait until an update is
computed. Metrics under `train/`, `eval/` and `alignment/` are functions of the config, its seeds included. Metrics that
depend on time or on the machine are under `time/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future

from prerl_jax.config.io import render
from prerl_jax.core.params import merge_params
from prerl_jax.core.phases import Phase, steps_left
from prerl_jax.core.types import TrainState
from prerl_jax.data import Batches
from prerl_jax.data.arrivals import ExampleStream, StreamEnded
from prerl_jax.evaluation.evaluate import evaluate
from prerl_jax.evaluation.unknown import UnknownVerdictsError
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.runtime.distributed import share_errors
from prerl_jax.runtime.profile import Profile
from prerl_jax.runtime.row_share import row_share
from prerl_jax.runtime.state import reset_optimizer
from prerl_jax.trainer.guards import GuardState, react, rollback_interval
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.references import References
from prerl_jax.trainer.reporting import Evaluation, Reporter, StepReport
from prerl_jax.trainer.rollouts import RolloutWorker
from prerl_jax.trainer.setup import Setup
from prerl_jax.trainer.timing import StepClock, Work
from prerl_jax.trainer.updates import align, prepare, update
from prerl_jax.trainer.verifiers import Verifiers
from prerl_jax.verify import VerifierError


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that the training loop uses.

    Attributes:
      programs: the compiled programs, and the run's setup.
      batches: yields the problems of each step. Checkpoints save its position.
      verifiers: verify the responses of steps and of evaluations.
      references: loads reference policies.
      guards: the state of the guards. Checkpoints save it.
      checkpoints: writes and reads checkpoints.
      reporter: writes metrics and completions, and shows the progress.
      profile: profiles the steps that `--profile` asks for.
      begin: loads the state of step 0 again, for a guard that rolls back to before the first checkpoint.
    """

    programs: Programs
    batches: Batches | ExampleStream
    verifiers: Verifiers
    references: References
    guards: GuardState
    checkpoints: Checkpoints
    reporter: Reporter
    profile: Profile
    begin: Callable[[], TrainState]

    @property
    def setup(self) -> Setup:
        """The config, and the mesh, model and data that were made from it."""
        return self.programs.setup

    @property
    def worker(self) -> RolloutWorker:
        """Samples and verifies the rollouts of a step."""
        return RolloutWorker(self.programs, self.batches, self.verifiers.training, self.reporter.check)


def train(run: Run, state: TrainState) -> TrainState:
    """Runs the remaining steps of all phases and returns the final state. The given state is donated.

    Raises CheckpointError if a checkpoint cannot be written; the previous one stays intact. Raises RuntimeError, with
    the number of finished steps, if a step raises ValueError or OSError: the command line then prints a traceback.
    Raises UnknownVerdictsError where too many verdicts are unknown, and VerifierError where the verifier fails.
    """
    phases, position = run.setup.phases, Position.of(state)
    try:
        with contextlib.closing(run.profile), run.reporter:
            if position.step == 0:
                base = evaluate_policy(run, state)
                run.guards.enter(phases[0], 0, base.metrics)
                run.reporter.evaluated(0, "base", base)
            while position.phase < len(phases):
                drawn = run.batches.get_state()
                try:
                    with run.profile.step(position.step + 1) as computed:
                        state, position = train_step(run, state, position)
                        computed(state)
                except StreamEnded as ended:
                    run.batches.set_state(drawn)  # a step that resamples may have drawn batches in vain
                    stop_early(run, state, position, str(ended))
                    break
        run.checkpoints.wait()
    except (UnknownVerdictsError, VerifierError) as error:
        raise type(error)(f"the run stopped after step {position.step}: {error}") from error
    except (ValueError, OSError) as error:
        raise RuntimeError(f"the run failed after step {position.step}: {error}") from error
    return state


def train_step(run: Run, state: TrainState, position: Position) -> tuple[TrainState, Position]:
    """Runs one step: samples rollouts, updates the policy, then evaluates, checks guards and saves where these are due.

    The given state is donated.
    """
    setup, programs, worker, config = run.setup, run.programs, run.worker, run.setup.config
    phase, step, clock = setup.phases[position.phase], position.step + 1, StepClock()
    if position.phase_begins and phase.reset_optimizer:
        state = reset_optimizer(state, setup.optimizer(phase))
    policy = merge_params(state.params, state.frozen)
    sampling_key, preparing_key = programs.step_keys(state.rng, position.step)

    pending = worker.sample(policy, phase, sampling_key, clock)
    verified = worker.verify(pending, step)
    rollouts = worker.resample(verified, policy, phase, sampling_key, clock, step)
    clock.mark("verified")

    prepared = prepare(
        programs,
        phase,
        state,
        rollouts.batch.rollouts,
        reference=run.references.of(phase, state),
        key=preparing_key,
        phase_step=position.phase_step,
        clock=clock,
    )
    aligned = align(programs, phase, policy, prepared) if due(config.alignment.every, position.step) else {}
    clock.mark("prepared", *(() if aligned else ("aligned",)))
    if aligned:
        run.reporter.watch_alignment(clock, aligned)

    state, updated = update(programs, phase, state, prepared)
    del policy, prepared  # an evaluation and a roll-back need this memory
    group_size = config.sampling.group_size
    work = Work(
        setup.model.config,
        (setup.share, row_share(setup.mesh)),
        rollouts.sampled,
        updated.trained,
        group_size,
        updated.scored,
    )
    metrics = updated.metrics | rollouts.metrics
    report = StepReport(step, phase.name, rollouts.batch, clock, metrics, aligned, work, rollouts.timeouts)
    after = position.next(setup.phases)

    if after.phase_begins or due(config.evaluation.every, step):
        report.wait()
        report = dataclasses.replace(report, evaluation=evaluate_policy(run, state))
    if phase.guards:
        state, after, report = guard(run, phase, position, state, after, report)
    if after.phase_begins:
        next_phase = setup.phases[after.phase] if after.phase < len(setup.phases) else None
        run.guards.enter(next_phase, step, {} if report.evaluation is None else report.evaluation.metrics)
    numbers = run.reporter.step(report)
    save_due = due(config.checkpoints.every, step) or due(rollback_interval(phase), after.phase_step)
    if after.phase_begins or save_due:
        save(run, phase, state, after, numbers)
    return state, after


def evaluate_policy(run: Run, state: TrainState) -> Evaluation:
    """Evaluates the policy of a state on the held-out problems."""
    setup, start = run.setup, time.perf_counter()
    metrics = evaluate(
        run.programs.evaluation_engine,
        merge_params(state.params, state.frozen),
        setup.evaluation,
        setup.config.evaluation,
        setup.evaluation_calls,
        tokens=setup.tokens,
        mesh=setup.mesh,
        share=setup.share,
        verify=run.verifiers.evaluation,
        unknown_limit=setup.config.data.unknown_limit,
    )
    ended = time.perf_counter()
    return Evaluation(metrics | {"time/evaluate": ended - start}, ended)


def guard(
    run: Run, phase: Phase, before: Position, state: TrainState, after: Position, report: StepReport
) -> tuple[TrainState, Position, StepReport]:
    """Checks the phase's guards on the metrics of the step, and carries out their reaction. Waits for the update.

    Args:
      run: the run.
      phase: the phase of the step.
      before: the position before the step.
      state: the state after the step.
      after: the position after the step.
      report: the report of the step.

    Returns: (state, position, report) after the reaction.
    """
    evaluated = {} if report.evaluation is None else report.evaluation.metrics
    decision = run.guards.decide(phase, report.step, report.measured() | evaluated)
    reaction = react(run.setup, run.checkpoints, run.begin, run.guards, decision, phase, before, after, state)
    report = dataclasses.replace(report, guards=decision.metrics)
    for text in decision.warned:
        run.reporter.message(f"warning: guard {text}")
    if reaction.reason is None:
        return state, after, report
    state, after = reaction.state, reaction.position
    if reaction.rolled_back or report.evaluation is None:
        report = dataclasses.replace(report, evaluation=evaluate_policy(run, state))
    run.reporter.replan(after.step + steps_left(run.setup.phases, after.phase, 0))
    run.reporter.message(f"{phase.name} ended: {reaction.reason}")
    return state, after, report


def save(run: Run, phase: Phase, state: TrainState, after: Position, numbers: Future[dict[str, float]]) -> None:
    """Saves a checkpoint, after the metrics of this and of all earlier steps are on disk.

    Args:
      run: the run.
      phase: the phase of the step.
      state: the state after the step.
      after: the position after the step.
      numbers: the metrics of the step.
    """
    with share_errors("writing the metrics and the previous checkpoint"):
        run.reporter.flush()
        run.checkpoints.wait()
    extra = {
        "data": run.batches.get_state(),
        "phase": after.phase,
        "config": render(run.setup.config),
        "guards": run.guards.saved(),
        "prompts": {split: dataclasses.asdict(record) for split, record in run.setup.prompts.items()},
    }
    needed = () if after.phase_begins else run.guards.needed(phase)
    run.checkpoints.save(after.step, state, extra, numbers.result(), boundary=after.phase_begins, needed=needed)


def stop_early(run: Run, state: TrainState, position: Position, reason: str) -> None:
    """Evaluates and saves the policy where a stream has no further batch. The same command goes on from there.

    Raises ValueError before the first step.
    """
    step, total = position.step, position.step + steps_left(run.setup.phases, position.phase, position.phase_step)
    if not step:
        raise ValueError(f"data.train has no batch: {reason}.")
    run.reporter.message(
        f"the stream ended after step {step} of {total}: {reason}. The same command goes on when there are more."
    )
    phase, metrics = run.setup.phases[position.phase], Future[dict[str, float]]()
    if not position.phase_begins:  # else the end of the phase before was evaluated and saved
        run.reporter.evaluated(step, phase.name, evaluate_policy(run, state))
    if run.checkpoints.latest_step() != step:
        metrics.set_result({})
        save(run, phase, state, position, metrics)


def due(every: int, number: int) -> bool:
    """Whether `number` is a multiple of `every`. `every` = 0 means never."""
    return bool(every) and number % every == 0
