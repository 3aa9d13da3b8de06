"""Checks of the values of a config against one another. Each spec and each phase has checked its own values already."""

from __future__ import annotations

import dataclasses
import math

from prerl_jax.config.schema import TrainConfig
from prerl_jax.core.guards import EndPhase
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.verify.batch import require_verifier, require_workers


def _validate_phases(config: TrainConfig) -> None:
    if not config.phases:
        raise ValueError("phases is empty; a run has at least one, for instance phases=dsrl(warmup=20, total=348).")
    names = [phase.name for phase in config.phases]
    taken = sorted({name for name in names if names.count(name) > 1} | ({"base"} & set(names)))
    if taken:
        raise ValueError(
            f"the phases are named {names}: {taken} are not distinct in the summary, which has one row per phase "
            'and one called "base". Give each phase its own name.'
        )
    if config.sampling.group_size == 1:
        for phase in config.phases:
            if any(term.advantage.traits.compares_group for term in phase.all_terms):
                raise ValueError(
                    f"sampling.group_size is 1, and phase {phase.name!r} compares a response with its group: every "
                    "advantage would be 0. Set sampling.group_size to 2 or more, or give the phase another advantage "
                    "estimator."
                )


def _validate_needs(config: TrainConfig) -> None:
    """Objectives have the reference and the sampling distribution that they need."""
    restricted = {
        f"sampling.{name}": v for name in ("top_k", "top_p") if (v := getattr(config.sampling, name)) is not None
    }
    for phase in config.phases:
        what, objective = f"phase {phase.name!r}", phase.objective
        if restricted and (objective.traits.uses_ratio or objective.traits.needs_sampler_logprobs):
            raise ValueError(
                f"{what} has an importance ratio under the full softmax in {objective}, and with "
                f"{' and '.join(f'{name} = {v}' for name, v in restricted.items())} responses are sampled from another "
                f"distribution. Set {' and '.join(restricted)} to None, or use an objective without a ratio, such as "
                "Reinforce()."
            )
        parts = (objective, phase.reward_shaping)
        reading = [part for part in parts if part is not None and part.traits.needs_reference]
        if reading and phase.reference is None:
            raise ValueError(
                f"{what} has a KL divergence in {reading[0]}, and no reference policy. Set the phase's reference to "
                "InitialModel() or PhaseStart(), or leave the divergence out."
            )
        watched = any(guard.metric == "train/reference_kl" for guard in phase.guards)
        if phase.reference is not None and not (reading or watched):
            raise ValueError(
                f"{what} has the reference {phase.reference}, and neither its objective, its reward shaping nor a "
                "guard uses one: it would take memory and a forward pass for nothing. Use WithKL(objective, beta), "
                "KLPenalty(beta) or a Guard on train/reference_kl, or leave the reference out."
            )


def _validate_critic(config: TrainConfig) -> None:
    """The config has a critic if a phase reads its values, and only then."""
    reading = [phase for phase in config.phases if phase.value_advantage is not None]
    if reading and config.critic is None:
        raise ValueError(
            f"phase {reading[0].name!r} has the advantage estimator {reading[0].value_advantage}, which needs a "
            "critic's values, and the config has no critic. Set critic=CriticSpec(), or use an estimator without a "
            "critic, such as GroupRelative()."
        )
    if config.critic is not None and not reading:
        raise ValueError(
            f"critic is {config.critic}, and no phase reads its values: it would take memory and never learn. Give a "
            "phase the advantage estimator GAE(), as ppo(...) does, or set critic=None."
        )
    if reading and config.alignment.every and config.sampling.group_size == 1:
        raise ValueError(
            f"sampling.group_size is 1 and alignment.every {config.alignment.every}: alignment is not measured of "
            f"{reading[0].value_advantage}, which reads a critic's values, but of GRPO's objective, which compares the "
            "responses of a group. Set alignment.every=0, or sampling.group_size to 2 or more."
        )


def _validate_minibatches(config: TrainConfig, shards: int | None) -> None:
    """Minibatches are whole groups, equally many in each, and divide over the mesh as the batch does."""
    prompts, group_size = config.sampling.prompts_per_step, config.sampling.group_size
    for phase in config.phases:
        what, groups = f"phase {phase.name!r} has minibatches = {phase.minibatches}", prompts // phase.minibatches
        if prompts % phase.minibatches:
            raise ValueError(
                f"{what}, which do not divide the sampling.prompts_per_step = {prompts} groups of a step; a minibatch "
                f"is made of whole groups. Use one of {[n for n in range(1, prompts + 1) if prompts % n == 0]}."
            )
        rows = math.gcd(groups * group_size, prompts * group_size // config.microbatches)
        if shards and rows % shards:
            raise ValueError(
                f"{what}, of {groups * group_size} rows each, and microbatches = {config.microbatches}: {rows} rows "
                f"fit both, and do not divide over the {shards} shards of the mesh (data x fsdp). Use fewer "
                "minibatches or microbatches."
            )


def _validate_batch(config: TrainConfig, shards: int | None) -> None:
    """The rows of a step divide into microbatches, and these and the measured groups over the mesh."""
    sampling = config.sampling
    prompts, group_size = sampling.prompts_per_step, sampling.group_size
    rows = prompts * group_size
    product = f"sampling.prompts_per_step x sampling.group_size = {prompts} x {group_size} = {rows} rows"
    if rows % config.microbatches:
        raise ValueError(f"{product} do not divide into microbatches = {config.microbatches}; change one of the three.")
    sizes = (config.mesh.replica, config.mesh.data, config.mesh.fsdp)
    if shards is None and min(sizes) > 0:
        shards = math.prod(sizes)
    if shards and prompts % shards:
        raise ValueError(
            f"sampling.prompts_per_step = {prompts} groups do not divide over the {shards} shards of the mesh (data x "
            "fsdp); a shard has whole groups. Change the number of prompts, or give more devices to mesh.tensor."
        )
    if shards:
        sampling.engine.check(shards)
    size = rows // config.microbatches
    if shards and size % shards:
        raise ValueError(
            f"{product} in microbatches = {config.microbatches} are {size} rows each, which do not divide over the "
            f"{shards} shards of the mesh (data x fsdp); use fewer microbatches."
        )
    measured = config.alignment.prompts if config.alignment.every else 0
    if measured > prompts:
        raise ValueError(
            f"alignment.prompts is {measured}, but a step has sampling.prompts_per_step = {prompts}. Set "
            "alignment.prompts to that or less, or alignment.every=0."
        )
    if shards and measured % shards:
        raise ValueError(
            f"alignment.prompts = {measured} groups do not divide over the {shards} shards of the mesh (data x fsdp); "
            "change it to a multiple, or set alignment.every=0."
        )


def _validate_guards(config: TrainConfig) -> None:
    """Guards watch metrics that are measured, and measured often enough.

    The names of `train/` and `alignment/` metrics are checked in the run, where they are known.
    """
    evaluation, every, start = config.evaluation, config.evaluation.every, 0
    for phase in config.phases:
        for guard in phase.guards:
            what, kind = f"phase {phase.name!r} has a guard on {guard.metric}", guard.metric.partition("/")[0]
            if kind == "eval" and guard.metric not in evaluation.metrics:
                raise ValueError(
                    f"{what}, which is never measured with evaluation.samples = {evaluation.samples}: watch one of "
                    f"{', '.join(evaluation.metrics)}."
                )
            given_prompt = any(term.space.traits.given_prompt for term in phase.all_terms)
            if guard.metric == "train/sampler_logprob_diff" and not given_prompt:
                raise ValueError(
                    f"{what}, which compares with the sampler's log-probabilities. These are given the prompt, and the "
                    "phase trains in a space without it. Leave the guard out, or use PostTrainSpace()."
                )
            if kind == "alignment" and not config.alignment.every:
                raise ValueError(f"{what}, and alignment.every is 0: set it to the steps between measurements.")
            if kind == "eval" and isinstance(guard.reaction, EndPhase) and not 0 < every < phase.steps:
                raise ValueError(
                    f"{what} that is to end the phase, and with evaluation.every = {every} it is measured only after "
                    f"the phase's {phase.steps} steps. Set evaluation.every to less than that."
                )
            if kind in ("eval", "alignment"):
                _validate_patience(config, what, kind, guard.patience, start, phase.steps)
        start += phase.steps


def _validate_patience(config: TrainConfig, what: str, kind: str, patience: int, start: int, steps: int) -> None:
    """The `steps` steps after step `start` measure the metric at least as often as the guard's patience."""
    if kind == "alignment":  # measured at step 1, and every `every` steps from there
        cadence, every = "alignment.every", config.alignment.every
        count = -(-(start + steps) // every) + -start // every
    else:  # measured at the phase's start, every `every` steps, and at its end
        cadence, every = "evaluation.every", config.evaluation.every
        count = 2 + ((start + steps - 1) // every - start // every if every else 0)
    if count < patience:
        raise ValueError(
            f"{what} with patience {patience}, but with {cadence} = {every} it is measured {count} times in the "
            f"phase's {steps} steps, so the guard could never trip. Set {cadence} to fewer steps, or use a smaller "
            "patience."
        )


def _validate_verifiers(config: TrainConfig) -> None:
    """The verifiers are verifiers, and have the workers that they need."""
    data = config.data
    verifiers = {"data.verifier": data.verifier, "data.evaluation_verifier": data.verifier_of_evaluation}
    for name, verifier in verifiers.items():
        require_verifier(verifier, name)
        require_workers(verifier, data.verify_workers)


def _validate_best(config: TrainConfig) -> None:
    best, evaluation, every = config.checkpoints.best, config.evaluation, config.checkpoints.every
    if best is None:
        return
    names = evaluation.metrics
    if best not in names:
        raise ValueError(
            f"checkpoints.best is {best!r}, which is never measured with evaluation.samples = {evaluation.samples}: "
            f"set it to one of {', '.join(map(repr, names))}, or to None."
        )
    if every and evaluation.every and max(every, evaluation.every) % min(every, evaluation.every):
        raise ValueError(
            f"checkpoints.best is {best!r}, which needs a checkpoint and an evaluation of the same step: with "
            f"checkpoints.every = {every} and evaluation.every = {evaluation.every} that is every "
            f"{math.lcm(every, evaluation.every)} steps. Make one a multiple of the other, or set "
            "checkpoints.best=None."
        )


def validate(config: TrainConfig, shards: int | None = None) -> TrainConfig:
    """Checks that the values of a config fit together.

    Args:
      config: the config.
      shards: how many shards the mesh splits a batch into, data x fsdp. None takes the product of mesh.data and
        mesh.fsdp where the config gives both, and leaves these checks out otherwise.

    Returns:
      The same config.

    Raises:
      ValueError: something does not fit. The message has the numbers and the remedy.
    """
    _validate_phases(config)
    _validate_verifiers(config)
    _validate_needs(config)
    _validate_critic(config)
    _validate_batch(config, shards)
    _validate_minibatches(config, shards)
    _validate_best(config)
    _validate_guards(config)
    return config


def validate_without_mesh(config: TrainConfig) -> TrainConfig:
    """Checks a config as `validate` does, but for what depends on the mesh: `trainer.meshes` checks that against the
    devices, and says which mesh would fit."""
    validate(dataclasses.replace(config, mesh=MeshSpec()))
    return config
