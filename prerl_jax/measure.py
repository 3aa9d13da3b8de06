"""`python -m prerl_jax.measure --config lab --out DIR`: measures a model's responses in P(y) and in P(y|x).

The command samples a group of responses to each of the first training problems, verifies them, and writes into DIR

    measurement.json     all numbers, and the model and the settings they belong to
    tokens.npz           the values by token, one row for each response
    alignment.png        cosine and marginal gap by the token's probability, by its position, and by both
    gap_right.png, gap_wrong.png     one right and one wrong response, each token coloured by its marginal gap

It takes two forward passes in each space. `--gradients` also computes the cosines of whole gradients, by layer and by
kind of parameter, with backward passes. It runs in one process, on all its devices. docs/measurements.md explains the
numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prerl_jax.alignment.buckets import AXES, Buckets, bucketed, token_alignment_metrics
from prerl_jax.alignment.gradients import make_dual_gradients
from prerl_jax.alignment.measurements import make_probability_statistics
from prerl_jax.alignment.tokens import TokenAlignment, make_token_alignment
from prerl_jax.analysis.alignment_figures import alignment_figure, gap_heat_map
from prerl_jax.analysis.thoughts import count_thoughts
from prerl_jax.config.overrides import add_config_arguments, config_of
from prerl_jax.config.schema import TrainConfig
from prerl_jax.core.logprobs import chunk_length
from prerl_jax.core.phases import Phase
from prerl_jax.core.spaces import PreTrainSpace
from prerl_jax.core.types import Params, Rollouts
from prerl_jax.evaluation.sampling import VerifiedResponses, padded_prompts, problems_of, sample, verify
from prerl_jax.evaluation.verification import Verification
from prerl_jax.runtime.checkpoint_address import CheckpointAddress
from prerl_jax.runtime.checkpoints import restore_params
from prerl_jax.runtime.mesh import batch_shards, global_rows
from prerl_jax.runtime.metrics import MetricsError, write_json
from prerl_jax.runtime.step_files import CheckpointError
from prerl_jax.trainer.alignment import alignment_phases
from prerl_jax.trainer.hub import pinned
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import Setup, set_up
from prerl_jax.trainer.verifiers import open_verifiers
from prerl_jax.verify import VerifierError

LONGEST_MAP = 1500
"""The heat map of a response shows at most this many of its tokens."""
TITLE = 76
"""The heat map's title shows the end of the prompt, in at most this many characters."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Verified responses and their prompts, on the host.

    Attributes:
      responses: rollouts of B rows, their texts and judgements.
      prompts: the prompt of each row as text.
    """

    responses: VerifiedResponses
    prompts: list[str]

    @property
    def right(self) -> np.ndarray:
        """bool[B]: whether a response is right."""
        return np.asarray(self.responses.rollouts.right)

    @property
    def wrong(self) -> np.ndarray:
        """bool[B]: whether a response is wrong. One on which the verdict is unknown is neither."""
        return np.asarray(self.responses.rollouts.known) & ~self.right


def measure(
    config: TrainConfig,
    out: str | Path,
    *,
    init_from: str | None = None,
    groups: int | None = None,
    gradients: bool = False,
    buckets: Buckets | None = None,
) -> dict[str, Any]:
    """Measures a config's model, and writes the files that the module lists into `out`.

    Args:
      config: its model, data, sampling and seed are used, and the spaces of its phases.
      out: the output folder; it is created if it does not exist.
      init_from: WORKDIR or WORKDIR@STEP of a run of this config; its parameters are measured, not config.model's.
      groups: the number of problems, with sampling.group_size responses each. None: config.alignment.prompts.
      gradients: also compute the cosines of whole gradients.
      buckets: the buckets of probabilities and positions. None: the default ones.

    Returns:
      The content of measurement.json.

    Raises:
      ValueError: the config is wrong, the checkpoint does not fit the model, or the number of groups is out of range
        or does not divide over the devices.
    """
    config, _ = pinned(config)
    setup, buckets = set_up(config), buckets or Buckets()
    groups = config.alignment.prompts if groups is None else groups
    _check_groups(setup, groups)
    params = setup.load_params() if init_from is None else _restored(setup, init_from)
    pre, post = alignment_phases(setup)
    sampled = _sample(setup, params, post, groups)
    on_mesh = global_rows(setup.mesh, sampled.responses.rollouts, setup.share)
    alignment, tables, metrics = jax.device_get(_program(setup, pre, post, buckets)(params, on_mesh))
    if gradients:
        metrics |= jax.device_get(_gradients(setup, pre, post)(params, on_mesh))
    names = buckets.names(alignment.mask.shape[1])
    thoughts = count_thoughts(sampled.responses.texts, config.evaluation.thoughts)
    report = {
        "config": config.name,
        "model": config.model.path,
        "init_from": init_from,
        "temperature": post.temperature,
        "prefix": pre.space.prefix if isinstance(pre.space, PreTrainSpace) else None,
        "groups": groups,
        **_summary(sampled, alignment),
        "metrics": dict(sorted(metrics.items())),
        "thoughts": {name: float(counts.mean()) for name, counts in thoughts.items()},
        "tokens_by": _by_bucket(names, tables["cosine"].count),
        **{f"{quantity}_by": _by_bucket(names, table.mean) for quantity, table in tables.items()},
    }
    out = Path(out).absolute()
    _write(out, setup, sampled, alignment, report)
    title = f"{config.name}, {init_from or config.model.path}: {len(sampled.prompts)} responses"
    alignment_figure(tables, names, f"{title}, {report['accuracy']:.0%} right").savefig(out / "alignment.png", dpi=110)
    return report


def _check_groups(setup: Setup, groups: int) -> None:
    """Raises ValueError if this number of groups cannot be measured."""
    problems = len(setup.fixed["train"])
    if not problems:
        raise ValueError("data.train is a stream; a measurement needs fixed problems, such as FileProblems.")
    if not 1 <= groups <= problems or groups % batch_shards(setup.mesh):
        raise ValueError(
            f"{groups} groups cannot be measured: there are {problems} problems, and their number must be a "
            f"multiple of the {batch_shards(setup.mesh)} shards of the batch. Choose another --groups."
        )


def _restored(setup: Setup, init_from: str) -> Params:
    address = CheckpointAddress.parse(init_from)
    return restore_params(address.checkpoints, setup.model.abstract_params(), address.step).state


def _sample(setup: Setup, params: Params, phase: Phase, groups: int) -> Measured:
    """Samples and verifies groups for the first training problems, as a training step does."""
    group_size, examples = setup.config.sampling.group_size, setup.fixed["train"][:groups]
    problems = problems_of(examples, group_size)
    prompts = padded_prompts(examples, setup.tokens, np.arange(groups, dtype=np.int32))
    engine, key = Programs(setup).engine(phase), jax.random.PRNGKey(setup.config.seed)
    with open_verifiers(setup.config) as verifiers:
        verification = Verification(problems, verifiers.training, setup.decode, setup.stop_tokens, share=setup.share)
        responses = verify(sample(engine, params, prompts, key, verification), "of the measurement")
    return Measured(responses, setup.decode([list(example.tokens) for example in examples for _ in range(group_size)]))


def _program(setup: Setup, pre: Phase, post: Phase, buckets: Buckets):
    """(params, rollouts) -> (TokenAlignment, {"cosine", "marginal_gap": Bucketed}, metrics), one jit."""
    model = setup.model
    spaces, temperature = {"pre": pre.space, "post": post.space}, post.temperature

    @jax.jit
    def program(params: Params, rollouts: Rollouts):
        rows, length = rollouts.response.shape
        chunk = chunk_length(4 * rows, length, model.config.vocab_size, batch_shards(setup.mesh))
        alignment = make_token_alignment(model, pre.space, post.space, temperature, chunk)(params, rollouts)
        statistics = make_probability_statistics(
            model, spaces, setup.stop_tokens, temperature=temperature, chunk=chunk
        )(params, rollouts)
        fields = ("cosine", "marginal_gap")
        tables = {name: bucketed(getattr(alignment, name), alignment, buckets) for name in fields}
        metrics = {f"alignment/{name}": value for name, value in statistics.items()}
        return alignment, tables, metrics | token_alignment_metrics(alignment, buckets)

    return program


def _gradients(setup: Setup, pre: Phase, post: Phase):
    """(params, rollouts) -> cosines of the two objectives' gradients: over all, by layer, by kind of parameter."""
    config = setup.config

    @jax.jit
    def program(params: Params, rollouts: Rollouts):
        rows, length = rollouts.response.shape
        tokens = length + rollouts.prompt.shape[1]
        chunk = chunk_length(rows, tokens, setup.model.config.vocab_size, batch_shards(setup.mesh))
        dual = make_dual_gradients(
            setup.model,
            pre,
            post,
            config.sampling.group_size,
            logprob_alignment=config.alignment.mean_logprob,
            chunk=chunk,
        )
        return dual(params, rollouts)[2]

    return program


def _summary(sampled: Measured, alignment: TokenAlignment) -> dict[str, Any]:
    """Counts of the responses, and the means over the tokens of right and of wrong responses."""
    mask, right, wrong = alignment.mask, sampled.right, sampled.wrong
    found: dict[str, Any] = {
        "responses": len(right),
        "tokens": int(mask.sum()),
        "accuracy": float(right.sum() / max(1, (right | wrong).sum())),
        "unknown": float((~(right | wrong)).mean()),
        "truncated": float(np.mean(np.asarray(sampled.responses.rollouts.truncated))),
    }
    for name, rows in (("right", right), ("wrong", wrong)):
        chosen = mask & rows[:, None]
        for field in ("cosine", "marginal_gap", "logprobs_pre", "logprobs_post"):
            found[f"{field}_{name}"] = float(getattr(alignment, field)[chosen].mean()) if chosen.any() else None
    return found


def _by_bucket(names: dict[str, Any], values: Callable[[str], Any]) -> dict[str, dict[str, float]]:
    return {axis: dict(zip(names[axis], np.asarray(values(axis)).tolist(), strict=True)) for axis in AXES}


def _write(out: Path, setup: Setup, sampled: Measured, alignment: TokenAlignment, report: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "measurement.json", report)
    arrays = {field.name: getattr(alignment, field.name) for field in dataclasses.fields(alignment)}
    rollouts = sampled.responses.rollouts
    np.savez_compressed(out / "tokens.npz", response=rollouts.response, rewards=rollouts.rewards, **arrays)
    for name, rows in (("right", sampled.right), ("wrong", sampled.wrong)):
        picture = out / f"gap_{name}.png"
        picture.unlink(missing_ok=True)
        scored = alignment.mask[:, :LONGEST_MAP].sum(axis=1) * rows
        if scored.any():  # draw the response that shows the most tokens
            _heat_map(setup, sampled, alignment, int(np.argmax(scored)), name).savefig(picture, dpi=130)


def _heat_map(setup: Setup, sampled: Measured, alignment: TokenAlignment, row: int, name: str):
    shown = np.flatnonzero(alignment.mask[row])[:LONGEST_MAP]
    tokens = [setup.tokenizer.decode([int(token)]) for token in sampled.responses.rollouts.response[row, shown]]
    asked = " ".join(sampled.prompts[row].split())
    asked = asked if len(asked) <= TITLE else f"... {asked[4 - TITLE :]}"
    gap = alignment.marginal_gap[row]
    total = f"log P(y|x) - log P(y) = {gap.sum():.1f} nats over {alignment.mask[row].sum()} tokens"
    return gap_heat_map(tokens, gap[shown], f"{name} answer to: {asked}\n{total}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m prerl_jax.measure", description="Measure how P(y) and P(y|x) see a model's own responses."
    )
    add_config_arguments(p)
    p.add_argument("--out", type=Path, required=True, help="the output folder")
    p.add_argument(
        "--init-from", metavar="WORKDIR[@STEP]", help="measure the parameters of a run, not the config's checkpoint"
    )
    p.add_argument("--groups", type=int, help="number of problems; default: the config's alignment.prompts")
    p.add_argument("--gradients", action="store_true", help="also compute the cosines of whole gradients")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # the advice is to install PyTorch
    args = parser().parse_args(argv)
    try:
        config = config_of(args)
        settings = {"init_from": args.init_from, "groups": args.groups, "gradients": args.gradients}
        report = measure(config, args.out, **settings)
    except (ValueError, OSError, ImportError, CheckpointError, MetricsError, VerifierError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{report['responses']} responses, {report['tokens']} tokens, accuracy {report['accuracy']:.3f}")
    for axis, means in report["cosine_by"].items():
        shown = "  ".join(f"{name}: {mean:.3f}" for name, mean in means.items() if np.isfinite(mean))
        print(f"cosine by {axis:<14}{shown}")
    for name in ("alignment/token", "alignment/token_weighted", "alignment/marginal_gap", "alignment/objective"):
        if name in report["metrics"]:
            print(f"{name:<28}{float(report['metrics'][name]):.3f}")
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
