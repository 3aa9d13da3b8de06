"""The verifiers of a run, opened from its config, and what is checked with them before the first step."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

from prerl_jax.config.schema import TrainConfig
from prerl_jax.data import Example
from prerl_jax.data.arrivals import ExampleStream, StreamEnded
from prerl_jax.evaluation.probe import probe, require_truncated_is_worst
from prerl_jax.evaluation.verification import Verify
from prerl_jax.trainer.setup import Setup
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


def probe_verifiers(setup: Setup, verifiers: Verifiers) -> tuple[str, ...]:
    """Checks before a run that a truncated response is worth no more than a wrong one, and probes the verifiers.

    Returns the notes of the probe, which `data.probe=False` leaves out. Raises ValueError and VerifierError as
    `require_truncated_is_worst` and `probe` do.
    """
    data, first = setup.config.data, _first_problems(setup)
    if any(not term.advantage.traits.needs_verdict for phase in setup.phases for term in phase.all_terms):
        require_truncated_is_worst(first, verifiers.training, data.truncated_reward)
    if not data.probe:
        return ()
    asked = (
        (first, "train", data.verifier, verifiers.training),
        (setup.evaluation, "evaluation", data.verifier_of_evaluation, verifiers.evaluation),
    )
    notes = (
        probe(examples, split, verifier, verify, setup.decode, data.unknown_limit)
        for examples, split, verifier, verify in asked
    )
    return tuple(itertools.chain.from_iterable(notes))


def _first_problems(setup: Setup) -> tuple[Example, ...]:
    """The training problems; of a stream those of its first batch. Raises ValueError if it has none."""
    if not isinstance(setup.train, ExampleStream):
        return setup.train
    try:
        return setup.train.first()
    except StreamEnded as error:
        raise ValueError(f"data.train has no batch: {error}.") from error
