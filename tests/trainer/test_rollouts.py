"""Dynamic sampling: which groups are replaced by which, on one process and on two, and runs with resamples."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_run
import toy
from tiny_run import Died, dies_at, lines, state_at, timeless

import prerl_jax as pj
from prerl_jax.config import AlignmentSpec
from prerl_jax.data import Example
from prerl_jax.data.problems import Problem
from prerl_jax.evaluation.sampling import VerifiedResponses
from prerl_jax.runtime.row_share import ALONE, RowShare
from prerl_jax.trainer import rollouts as rollouts_module
from prerl_jax.trainer.rollouts import RolloutBatch, completions, replace_groups, replacements
from prerl_jax.trainer.start import run
from prerl_jax.verify import UNKNOWN, Judgement, Verified, right_or_wrong


@pytest.mark.parametrize(
    ("mixed", "places", "sources"),
    [
        (["1111"], [], []),
        (["1010"], [], []),
        (["1010", "0110"], [1, 3], [5, 6]),
        (["1010", "0100"], [1], [5]),  # what is missing stays
        (["0010", "0100", "1001"], [0, 1, 3], [5, 8, 11]),
        (["1110", "1111"], [3], [4]),
    ],
)
def test_mixed_groups_take_the_places_of_the_others_in_sampling_order(mixed, places, sources):
    found = replacements(np.array([[c == "1" for c in row] for row in mixed]))
    assert [part.tolist() for part in found] == [places, sources]


def sampled_batch(number, process=None):
    """A batch of four groups of two, or a process's half of it. Every entry has the number of its row."""
    rows = np.arange(8) + 100 * number
    tokens = np.repeat(rows[:, None], 3, axis=1).astype(np.int32)
    full = np.ones((8, 3), bool)
    rollouts = pj.Rollouts(tokens, full, tokens, full, rows.astype(np.float32), tokens.astype(np.float32), full[:, 0])
    verified = Verified([Judgement(float(row), "wrong", f"answer {row}") for row in rows], full[:, 0].copy())
    problems, texts = np.arange(4, dtype=np.int32) + 10 * number, [str([int(r)] * 3) for r in rows]
    if process is None:
        return RolloutBatch(problems, VerifiedResponses(rollouts, texts, verified))
    half = slice(4 * process, 4 * process + 4)
    mine = jax.tree.map(lambda x: x[half], rollouts)
    verified = Verified(verified.judgements[half], full[half, 0].copy())
    return RolloutBatch(problems[half.start // 2 :][:2], VerifiedResponses(mine, texts[half], verified))


def decode(rows):
    return [str(row) for row in rows]


def test_two_processes_put_together_what_one_does(monkeypatch):
    places, sources = np.array([1, 2, 3]), np.array([4, 7, 9])
    whole = replace_groups([sampled_batch(n) for n in range(3)], places, sources, 2, decode, ALONE)
    rewards = whole.responses.rollouts.rewards
    assert whole.problems.tolist() == [0, 10, 13, 21]
    assert rewards.tolist() == [0, 1, 100, 101, 106, 107, 202, 203]
    assert whole.responses.texts == [str([int(r)] * 3) for r in rewards]
    assert (whole.responses.rollouts.response[:, 0] == rewards).all()

    halves = []
    for process in range(2):
        mine = [sampled_batch(n, process) for n in range(3)]
        both = {
            id(part): np.concatenate([part, other]) if process == 0 else np.concatenate([other, part])
            for batch, rest in zip(mine, (sampled_batch(n, 1 - process) for n in range(3)), strict=True)
            for part, other in zip(arrays(batch), arrays(rest), strict=True)
        }
        monkeypatch.setattr(rollouts_module, "gather_rows", lambda rows, share, both=both: both[id(rows)])
        told = iter([1, 2])
        monkeypatch.setattr(rollouts_module, "gather_text", lambda text, told=told: text_of_both(next(told)))
        halves.append(replace_groups(mine, places, sources, 2, decode, RowShare(process, ((0,), (1,)))))
    first, second = halves
    assert [*first.problems, *second.problems] == whole.problems.tolist()
    assert first.responses.texts + second.responses.texts == whole.responses.texts
    judgements = [*first.responses.verified.judgements, *second.responses.verified.judgements]
    assert judgements == list(whole.responses.verified.judgements)
    assert [judgement.answer for judgement in judgements] == [f"answer {int(r)}" for r in rewards]
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), first.responses.rollouts, second.responses.rollouts)
    toy.assert_same_bits(both, whole.responses.rollouts)


def text_of_both(number):
    """What two processes send of the judgements of a batch."""
    halves = [sampled_batch(number, process).responses.verified.judgements for process in range(2)]
    return [json.dumps([dataclasses.astuple(judgement) for judgement in half]) for half in halves]


@pytest.mark.parametrize(
    ("verdicts", "mixed"),
    [
        ("right wrong", True),
        ("right right", False),
        ("right unknown", False),
        ("unknown unknown", False),
        ("right unknown wrong", True),
        ("wrong unknown wrong", False),
    ],
)
def test_unknown_verdicts_make_no_group_mixed(verdicts, mixed):
    """Though the array of rewards has a 0 where the verdict is unknown."""
    judgements = [UNKNOWN if v == "unknown" else right_or_wrong(v == "right") for v in verdicts.split()]
    verified, count = Verified(judgements, np.zeros(len(judgements), bool)), len(judgements)
    tokens = np.zeros((count, 1), np.int32)
    rollouts = pj.Rollouts(tokens, tokens, tokens, tokens, verified.rewards, tokens, known=verified.known)
    batch = RolloutBatch(np.zeros(1, np.int32), VerifiedResponses(rollouts, [""] * count, verified))
    assert batch.mixed(count, ALONE).tolist() == [mixed]


def test_completions_have_the_verdict_and_the_extracted_answer():
    batch = sampled_batch(0)
    judgements = [right_or_wrong(True, "7", True), UNKNOWN, *batch.responses.verified.judgements[2:]]
    responses = dataclasses.replace(batch.responses, verified=Verified(judgements, batch.responses.verified.timed_out))
    examples = [Example(Problem("1+6=", "7"), (1,))] * 4
    rows = completions(dataclasses.replace(batch, responses=responses), examples, "rl", 8)
    assert [(row["reward"], row["verdict"], row["extracted"]) for row in rows[:3]] == [
        (1.0, "right", "7"),
        (None, "unknown", None),
        (2.0, "wrong", "answer 2"),
    ]


def arrays(batch):
    return [batch.problems, batch.responses.verified.timed_out, *jax.tree.leaves(batch.responses.rollouts)]


def tiny(max_resamples):
    """Eight groups of two, some of which have equal rewards."""
    (phase,), config = pj.grpo(steps=3), tiny_run.config()
    return dataclasses.replace(
        config,
        phases=(dataclasses.replace(phase, max_resamples=max_resamples),),
        sampling=dataclasses.replace(config.sampling, prompts_per_step=8, group_size=2),
        alignment=AlignmentSpec(),
        completions_per_step=16,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs with max_resamples 2 and 0: {max_resamples: (metric lines, completions, workdir)}."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        for max_resamples in (2, 0):
            workdir = tmp_path_factory.mktemp("resampled")
            run(tiny(max_resamples), workdir, console=tiny_run.quiet())
            found[max_resamples] = timeless(workdir), lines(workdir, "completions.jsonl"), workdir
    return found


def constant(rewards):
    return all(reward == rewards[0] for reward in rewards)


@pytest.mark.slow
def test_a_step_draws_until_its_groups_are_mixed(runs, setup):
    records, said, workdir = runs[2]
    batches = [record["train/sampled_batches"] for record in records[1:]]
    assert max(batches) > 1
    for record in records[1:]:
        of = [c for c in said if c["step"] == record["step"]]
        groups = [of[i : i + 2] for i in range(0, 16, 2)]
        mixed = [not constant([c["reward"] for c in group]) for group in groups]
        assert record["train/mixed_groups"] == sum(mixed)
        assert sum(mixed) == 8 or record["train/sampled_batches"] == 3
        assert all(len({c["prompt"] for c in group}) == 1 for group in groups)
        verifier = tiny_run.config().data.verifier
        right = [c["response"].endswith(f"{verifier.marker}{c['answer']}") and not c["truncated"] for c in of]
        assert right == [c["reward"] == 1 for c in of]
        assert record["train/trained_fraction"] == sum(mixed) / 8
    data = [read_extra(workdir, step)["data"]["next_index"] for step in (2, 3)]
    assert data == np.cumsum(batches)[1:].tolist()


def read_extra(workdir, step):
    from etils import epath

    from prerl_jax.runtime.step_files import read_record

    return read_record(epath.Path(workdir) / "checkpoints" / str(step)).extra


@pytest.mark.slow
def test_accuracy_is_that_of_the_first_batch(runs):
    """Its prompts and samples are those of a step without resampling. Resampled batches do not count."""
    (_, again, *_), (_, once, *_) = runs[2][0], runs[0][0]
    assert again["train/sampled_batches"] > 1
    groups = ("solved_groups", "unsolved_groups")
    for name in ("reward", "accuracy", "unknown", *groups, "length", "truncated", "sampler_logprob"):
        assert again[f"train/{name}"] == once[f"train/{name}"], name
    assert again["train/trained_fraction"] > once["train/trained_fraction"]
    assert again["train/flops"] > once["train/flops"]
    assert "train/sampled_batches" not in once


@pytest.mark.slow
def test_a_resume_draws_the_same(tmp_path, runs, setup):
    """Killed in the second step, after a first step with resamples."""
    records, _, workdir = runs[2]
    calls = 1 + int(records[1]["train/sampled_batches"])  # the evaluation of the base model has the shape of a step
    with pytest.raises(Died), dies_at(tiny(2), calls):
        run(tiny(2), tmp_path, console=tiny_run.quiet())
    console = tiny_run.quiet()
    run(tiny(2), tmp_path, console=console)
    assert "resumed from the checkpoint at step 1" in console.file.getvalue()
    assert timeless(tmp_path) == records
    toy.assert_same_bits(state_at(tmp_path, setup, 3), state_at(workdir, setup, 3))


def test_what_learns_from_constant_groups_does_not_draw_again():
    for advantage in (pj.BinaryAdvantage(), pj.BatchNormalized(), pj.DropTruncated(pj.ConstantBaseline())):
        with pytest.raises(
            ValueError,
            match=r"'p' has max_resamples=1, to replace groups whose rewards are all equal.*Set max_resamples=0",
        ):
            pj.Phase("p", 1, advantage=advantage, max_resamples=1)
    with pytest.raises(ValueError, match="max_resamples=-1"):
        pj.Phase("p", 1, max_resamples=-1)
    pj.Phase("p", 1, advantage=pj.DropTruncated(pj.LeaveOneOut()), max_resamples=1)
