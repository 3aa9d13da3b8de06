"""Mistakes that a type checker reports, each on a line that ends with `# error`."""

import dataclasses

import jax

import prerl_jax as pj


@dataclasses.dataclass(frozen=True)
class Misspelt:
    traits = pj.ObjectiveTraits(elementwize=True)  # error

    def __call__(
        self, logprobs: jax.Array, batch: pj.Batch, entropy: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return logprobs, {}


@dataclasses.dataclass(frozen=True)
class WithoutTraits:
    def __call__(
        self, rollouts: pj.Rollouts, group_size: int, values: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        return rollouts.rewards, rollouts.rewards > 0


def use(rollouts: pj.Rollouts) -> None:
    pj.Phase("a", 1, advantage=WithoutTraits())  # error
    pj.Phase("a", 1, objective=pj.ClippedPG(low=0.2))  # error
    pj.SamplingSpec(group_sise=3)  # error
    print(rollouts.respons)  # error
    pj.OptimizerSpec(learning_rate="fast")  # error
