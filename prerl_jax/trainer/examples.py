"""The problems of a run as examples: loaded, checked, tokenised, and compared with one another."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from prerl_jax.config.schema import TrainConfig
from prerl_jax.data import Example, encode
from prerl_jax.data.arrivals import Encode, ExampleStream
from prerl_jax.data.columns import Dropped
from prerl_jax.data.contamination import Contamination, Overlap, note
from prerl_jax.data.mixture import Mixture, shares
from prerl_jax.data.order import Order
from prerl_jax.data.problems import Problem, ProblemSource
from prerl_jax.data.streams import ProblemStream
from prerl_jax.verify import IsolationError, NoVerifierError, unused_sources, usable
from prerl_jax.verify.usable import readable

STEPS_KEPT = 8
"""Steps whose problems of a stream are kept, for the report of a step that is written during the next one."""

CheckTokens = Callable[[Sequence[Example]], None]
"""Raises ValueError for token ids that the model does not know."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """The problems of a run with their prompt tokens.

    Attributes:
      train: those of training; a stream gives them as they arrive.
      order: the order of training with a mixture or a curriculum; None: every epoch is shuffled.
      evaluation: those of evaluation.
      overlaps: the training problems that are in the evaluation, too. Their numbers are those before any was dropped.
      notes: lines for the log.
    """

    train: tuple[Example, ...] | ExampleStream
    order: Order | None
    evaluation: tuple[Example, ...]
    overlaps: tuple[Overlap, ...]
    notes: tuple[str, ...]


def load_examples(config: TrainConfig, tokenizer: Any, check_tokens: CheckTokens) -> Examples:
    """Loads and encodes the problems of a config.

    Args:
      config: the config.
      tokenizer: a Hugging Face tokenizer.
      check_tokens: checks the tokens of all examples.

    Raises ValueError: a source has no usable problem, or too few for a step or for the windows of a curriculum.
    """
    data = config.data
    if isinstance(data.train, ProblemStream):
        evaluation, notes = _examples(config, data.evaluation, tokenizer, "evaluation")
        check_tokens(evaluation)
        stream = _stream(config, data.train, tokenizer, check_tokens, evaluation)
        return Examples(stream, None, evaluation, (), tuple(notes))
    sources = [source for source, _ in data.train.parts] if isinstance(data.train, Mixture) else [data.train]
    loaded = [_examples(config, source, tokenizer, "train") for source in sources]
    evaluation, evaluation_notes = _examples(config, data.evaluation, tokenizer, "evaluation")
    notes = [line for _, lines in loaded for line in lines] + evaluation_notes
    parts = [examples for examples, _ in loaded]
    check_tokens([example for part in (*parts, evaluation) for example in part])
    parts, overlaps, said = _decontaminated(parts, evaluation, data.decontaminate)
    parts, filtered = _within_curriculum(config, parts)
    train = tuple(example for part in parts for example in part)
    if len(train) < config.sampling.prompts_per_step:
        raise ValueError(
            f"sampling.prompts_per_step is {config.sampling.prompts_per_step}, but data.train has {len(train)} usable "
            "problems, and a step uses no problem twice. Set sampling.prompts_per_step to at most that."
        )
    notes = [*notes, *said, *filtered, *_unused(config, train, evaluation)]
    return Examples(train, _order(config, parts), evaluation, overlaps, tuple(notes))


def _unused(config: TrainConfig, train: tuple[Example, ...], evaluation: tuple[Example, ...]) -> list[str]:
    """A line for the log on each verifier that names sources which no problem has."""
    other = config.data.evaluation_verifier
    asked = {"verifier": (config.data.verifier, train if other else (*train, *evaluation))}
    if other:
        asked["evaluation_verifier"] = other, evaluation
    unused = {name: unused_sources(one, _problems(of)) for name, (one, of) in asked.items()}
    return [
        f"data.{name} names sources that no problem has: {', '.join(map(repr, sources))}"
        for name, sources in unused.items()
        if sources
    ]


def first_of_each_source(examples: tuple[Example, ...], limit: int | None) -> tuple[Example, ...]:
    """The first `limit` examples of each source; all for None."""
    counts: Counter[str] = Counter()
    kept = []
    for example in examples:
        counts[example.problem.source] += 1
        if limit is None or counts[example.problem.source] <= limit:
            kept.append(example)
    return tuple(kept)


def _examples(
    config: TrainConfig, source: ProblemSource, tokenizer: Any, split: str
) -> tuple[tuple[Example, ...], list[str]]:
    """(the problems of a source of data.train or data.evaluation with their prompt tokens, notes for the log)."""
    problems, dropped = source.load()
    if not problems:
        raise ValueError(f"data.{split} {source} has no problems.")
    data = config.data
    verifier = data.verifier_of_evaluation if split == "evaluation" else data.verifier
    try:
        problems, not_verifiable = usable(verifier, problems)
    except ValueError as error:
        raise ValueError(f"data.{split}: {error}") from error
    dropped = (*dropped, *not_verifiable)
    examples, report = encode(problems, tokenizer, data.template, data.max_prompt_tokens, data.too_long)
    notes = [f"{split} data: {report}"]
    if dropped:
        notes.append(f"{split} data: " + "; ".join(dropped[:4]) + (" ..." if len(dropped) > 4 else ""))
    return examples, notes


def _decontaminated(
    parts: list[tuple[Example, ...]], evaluation: tuple[Example, ...], drop: bool
) -> tuple[list[tuple[Example, ...]], tuple[Overlap, ...], list[str]]:
    """(the parts, without what is in the evaluation if `drop`; the overlaps; a line for the log if there are any)."""
    examples = [example for part in parts for example in part]
    overlaps = tuple(Contamination(_problems(evaluation)).find(_problems(examples)))
    said = [note(overlaps, len(examples), drop)] if overlaps else []
    if not (drop and overlaps):
        return parts, overlaps, said
    found, first, kept = {overlap.train for overlap in overlaps}, 0, []
    for part in parts:
        kept.append(tuple(example for number, example in enumerate(part, first) if number not in found))
        first += len(part)
        if not kept[-1]:
            raise ValueError(
                f"data.decontaminate is True, and all {len(part):,} problems of a source of data.train are in "
                f"data.evaluation: {said[0]}"
            )
    return kept, overlaps, said


def _within_curriculum(
    config: TrainConfig, parts: list[tuple[Example, ...]]
) -> tuple[list[tuple[Example, ...]], list[str]]:
    """(the problems that the curriculum keeps, a line for the log where it leaves some out)."""
    curriculum = config.data.curriculum
    if curriculum is None:
        return parts, []
    try:
        masks = [curriculum.kept(_problems(part)) for part in parts]
    except ValueError as error:
        raise ValueError(f"data.curriculum: {error}.") from error
    pairs = zip(parts, masks, strict=True)
    kept = [tuple(example for example, keep in zip(*pair, strict=True) if keep) for pair in pairs]
    before, after = sum(map(len, parts)), sum(map(len, kept))
    said = [f"train data: {before - after:,} of {before:,} problems are outside {curriculum.between} in difficulty"]
    return kept, said if after < before else []


def _order(config: TrainConfig, parts: list[tuple[Example, ...]]) -> Order | None:
    data = config.data
    if data.curriculum is None and len(parts) == 1:
        return None
    weights = data.train.weights if isinstance(data.train, Mixture) else (1,)
    return Order(
        [_problems(part) for part in parts],
        shares(weights),
        batch=config.sampling.prompts_per_step,
        seed=config.seed,
        curriculum=data.curriculum,
    )


def _stream(
    config: TrainConfig,
    source: ProblemStream,
    tokenizer: Any,
    check_tokens: CheckTokens,
    evaluation: tuple[Example, ...],
) -> ExampleStream:
    batch = config.sampling.prompts_per_step
    batches = 1 + max(phase.max_resamples for phase in config.phases)
    return ExampleStream(
        source, _encoder(config, tokenizer, check_tokens, evaluation), batch, keep=STEPS_KEPT * batch * batches
    )


def _encoder(config: TrainConfig, tokenizer: Any, check_tokens: CheckTokens, evaluation: tuple[Example, ...]) -> Encode:
    """Makes examples of single problems, by the rules for those of a fixed source."""
    data, contamination = config.data, Contamination(_problems(evaluation))

    def encode_one(problem: Problem) -> tuple[Example | Dropped, str]:
        try:
            problem = readable(data.verifier, problem)
        except (NoVerifierError, IsolationError):
            raise
        except ValueError:
            return Dropped("the verifier cannot verify it"), ""
        (example,), report = encode([problem], tokenizer, data.template, data.max_prompt_tokens, "truncate_left")
        if report.truncated and data.too_long == "drop":
            return Dropped(f"the prompt is longer than data.max_prompt_tokens={data.max_prompt_tokens}"), ""
        check_tokens([example])
        known = "it is in data.evaluation"
        if next(contamination.find([problem]), None) is None:
            return example, ""
        return (Dropped(known), "") if data.decontaminate else (example, known)

    return encode_one


def _problems(examples: Sequence[Example]) -> list[Problem]:
    return [example.problem for example in examples]
