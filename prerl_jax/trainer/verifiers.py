"""The verifiers of a run, opened from its config."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from prerl_jax.config.schema import TrainConfig
from prerl_jax.evaluation.verification import Verify
from prerl_jax.verify import open_verifier


@dataclasses.dataclass(frozen=True)
class Verifiers:
    """What verifies responses.

    Attributes:
      training: verifies the responses of training steps.
      evaluation: verifies the responses of evaluations; often the same.
    """

    training: Verify
    evaluation: Verify


@contextlib.contextmanager
def open_verifiers(config: TrainConfig) -> Iterator[Verifiers]:
    """Opens the verifiers of a config, and closes them at the end.

    Rewards outside [0, 1] are refused in training if a phase needs to know which responses are right.
    """
    data = config.data
    how = {"memory": data.verify_memory, "truncated_reward": data.truncated_reward}
    any_reward = not any(term.advantage.traits.needs_verdict for phase in config.phases for term in phase.all_terms)
    with contextlib.ExitStack() as held:

        def opened(verifier, any_reward: bool) -> Verify:
            pool = open_verifier(verifier, data.verify_workers, data.verify_timeout, any_reward=any_reward, **how)
            return held.enter_context(pool)

        training = opened(data.verifier, any_reward)
        other = data.verifier_of_evaluation
        yield Verifiers(training, training if other == data.verifier else opened(other, True))
