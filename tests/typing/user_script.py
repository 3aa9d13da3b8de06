"""A user's own parts, without a base class: mypy and pyright accept them. `tests/test_typing.py` runs both checkers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import prerl_jax as pj


@dataclasses.dataclass(frozen=True)
class MinusMedian:
    """An advantage estimator: the reward minus the median of its group."""

    traits = pj.AdvantageTraits(compares_group=True)
    scale: float = 1.0

    def __call__(
        self, rollouts: pj.Rollouts, group_size: int, values: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        groups = rollouts.rewards.reshape(-1, group_size)
        advantages = (groups - jnp.median(groups, axis=1, keepdims=True)).reshape(-1)
        return self.scale * advantages, jnp.ones_like(advantages, bool)


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """An objective: the advantage-weighted log-likelihood."""

    traits = pj.ObjectiveTraits(elementwise=True, skips_zero_advantage=True)

    def __call__(
        self, logprobs: jax.Array, batch: pj.Batch, entropy: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return -batch.advantages * logprobs, {"mean_entropy": entropy}


@dataclasses.dataclass(frozen=True)
class HalfOfThePrompt:
    """A space: P(y | the second half of the prompt's columns)."""

    traits = pj.SpaceTraits()

    def __call__(self, rollouts: pj.Rollouts) -> pj.Sequences:
        half = rollouts.prompt.shape[1] // 2
        shorter = dataclasses.replace(
            rollouts, prompt=rollouts.prompt[:, half:], prompt_mask=rollouts.prompt_mask[:, half:]
        )
        return pj.PostTrainSpace()(shorter)


@dataclasses.dataclass(frozen=True)
class ByLength:
    """A loss aggregation: every kept response counts as much as any other."""

    def __call__(self, mask: jax.Array, keep: jax.Array, response_length: int) -> jax.Array:
        kept = mask * keep[:, None]
        return kept / jnp.maximum(kept.sum(axis=1, keepdims=True), 1) / mask.shape[0]


@dataclasses.dataclass(frozen=True)
class LongerIsWorse:
    """A reward shaping: minus a hundredth of the response's share of its longest length."""

    traits = pj.RewardShapingTraits()

    def __call__(self, rollouts: pj.Rollouts, response_length: int) -> jax.Array:
        return rollouts.rewards - 0.01 * rollouts.response_mask.sum(axis=1) / response_length


@dataclasses.dataclass(frozen=True)
class EndsWith:
    """A verifier: the response ends with the answer."""

    def __call__(self, problem: pj.Problem, response: str) -> float:
        return float(response.endswith(problem.answer))


@dataclasses.dataclass(frozen=True)
class Squares:
    """A source of problems."""

    count: int

    def load(self) -> tuple[tuple[pj.Problem, ...], tuple[str, ...]]:
        return tuple(pj.Problem(f"{n} * {n} = ", str(n * n)) for n in range(self.count)), ()


def decay(phase_step: jax.Array) -> jax.Array:
    """A schedule."""
    return 1e-4 / (1.0 + phase_step)


def config() -> pj.TrainConfig:
    """A config of a user's own problems, verifier and parts."""
    phase = pj.Phase(
        "own",
        steps=10,
        space=HalfOfThePrompt(),
        advantage=MinusMedian(scale=2.0),
        objective=pj.WithEntropy(LogLikelihood(), 0.01),
        aggregation=ByLength(),
        reward_shaping=LongerIsWorse(),
        learning_rate=decay,
        guards=(pj.Guard("train/entropy", pj.Above(2.0), pj.RollBack(every=5)),),
    )
    return pj.TrainConfig(
        name="own",
        model=pj.ModelSpec("package:prerl_jax/lab_base", compute_dtype="float32"),
        data=pj.DataSpec(Squares(100), Squares(10), pj.PlainText(), EndsWith()),
        phases=(*pj.nsr_prerl(steps=5), phase),
        sampling=pj.SamplingSpec(prompts_per_step=8, group_size=4, engine=pj.StaticBatching()),
        optimizer=pj.OptimizerSpec(learning_rate=pj.Warmup(5, pj.Cosine(1e-4, 1e-5, 20))),
        mesh=pj.MeshSpec(data=1, fsdp=-1),
        alignment=pj.AlignmentSpec(every=5, prompts=4),
    )


def update(state: pj.TrainState, rollouts: pj.Rollouts) -> tuple[pj.TrainState, dict[str, jax.Array]]:
    """One update with the functions of the core."""
    (phase,) = pj.grpo(steps=1)
    model, _ = pj.load_model("package:prerl_jax/lab_base", mesh=pj.make_mesh(pj.MeshSpec()))
    batch = jax.jit(pj.make_prepare(phase, 4))(rollouts)
    step = jax.jit(pj.make_train_step(model, pj.adamw(1e-4), phase.objective))
    state, metrics = step(state, batch)
    return pj.advance((phase,), state), metrics


def sample(params: dict[str, Any], prompts: list[list[int]]) -> np.ndarray:
    """The responses of an engine to prompts of one length."""
    model, _ = pj.load_model("package:prerl_jax/lab_base")
    engine = pj.ContinuousBatching(slots=8).make(model, pj.SamplerConfig(16, stop_tokens=(2,)), 4)
    ids = np.array(prompts, np.int32)
    sampled = engine.sample(params, pj.Prompts(ids, np.ones_like(ids, bool)), jax.random.key(0))
    return np.asarray(sampled.rollouts.response)
