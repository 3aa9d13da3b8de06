"""Runs on streams, mixtures and curricula: what set-up makes of them, and a kill and resume that is exact."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_run

from prerl_jax import Columns, Curriculum, FileProblems, GSM8KAnswer, JsonlProblems, Mixture, StreamProblems
from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.start import run


def with_data(**fields):
    config = tiny_run.config()
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


def write(path, questions):
    rows = [{"prompt": f"{a}+{b}=\n", "answer": str(a + b), "level": a} for a, b in questions]
    with path.open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def questions(first, count):
    return [(first + n, 99 - n) for n in range(count)]


def test_a_mixture_and_its_curriculum_are_set_up(tmp_path):
    columns = Columns(difficulty="level")
    one, two = (FileProblems(write(tmp_path / f"{n}.jsonl", questions(n, 8)), columns) for n in (10, 40))
    setup = set_up(with_data(train=Mixture(((one, 3), (two, 1))), curriculum=Curriculum(between=(11, 99))))
    assert len(setup.train) == 15
    assert "train data: 1 of 16 problems are outside (11, 99) in difficulty" in setup.notes
    assert [(setup.order.numbers(n) < 7).sum() for n in range(5)] == [3] * 5
    assert set_up(tiny_run.config()).order is None
    with pytest.raises(ValueError, match=r"data\.curriculum: 64 of 64 problems have no difficulty"):
        set_up(with_data(curriculum=Curriculum()))


def test_contaminated_problems_are_said_or_dropped(tmp_path):
    train = JsonlProblems(write(tmp_path / "train.jsonl", questions(10, 8)))
    evaluation = JsonlProblems(write(tmp_path / "evaluation.jsonl", [(12, 97), (50, 50)]))
    kept = set_up(with_data(train=train, evaluation=evaluation))
    assert [(overlap.train, overlap.evaluation) for overlap in kept.overlaps] == [(2, 0)]
    assert any("1 of 8 training problems are in data.evaluation" in line for line in kept.notes)
    dropped = set_up(with_data(train=train, evaluation=evaluation, decontaminate=True))
    assert [example.problem.answer for example in dropped.train] == ["109"] * 7
    assert [example.problem.prompt[:2] for example in dropped.train] == ["10", "11", "13", "14", "15", "16", "17"]
    with pytest.raises(ValueError, match="all 8 problems of a source"):
        set_up(with_data(train=train, evaluation=train, decontaminate=True))


def test_a_stream_is_prepared_by_the_rules_of_a_fixed_source(tmp_path):
    evaluation = JsonlProblems(write(tmp_path / "e.json", [(12, 97), (50, 50)]))
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.jsonl", [(10, 10), (12, 97), (10**9, 10**9), (11, 11), (13, 13), (14, 14)])
    source = StreamProblems(str(tmp_path / "folder"), wait=0.0)
    setup = set_up(with_data(train=source, evaluation=evaluation, decontaminate=True))
    assert [example.problem.answer for example in setup.train.first()] == ["20", "22", "26", "28"]
    said, limit = [], setup.config.data.max_prompt_tokens
    setup.train.listen(said.append)
    assert [line.partition(": ")[2] for line in said] == [
        "a.jsonl, line 2: dropped: it is in data.evaluation",
        f"a.jsonl, line 3: dropped: the prompt is longer than data.max_prompt_tokens={limit}",
    ]
    with pytest.raises(ValueError, match=r"data\.evaluation is .*not a stream"):
        with_data(evaluation=source)
    with pytest.raises(ValueError, match=r"data\.train is a stream"):
        with_data(train=source, curriculum=Curriculum())


def completions(workdir):
    return [json.loads(line) for line in (workdir / "completions.jsonl").read_text().splitlines()]


def test_a_stream_leaves_out_acceptable_answers_that_the_verifier_cannot_read(tmp_path):
    row = json.dumps({"prompt": "1+6=\n", "answer": '["seven", "7", "proof", "7.0"]'})
    (tmp_path / "a.jsonl").write_text(4 * f"{row}\n")
    setup = set_up(with_data(train=StreamProblems(str(tmp_path), wait=0.0), verifier=GSM8KAnswer(marker="#")))
    problems = [example.problem for example in setup.train.first()]
    assert [(problem.answer, problem.alternatives) for problem in problems] == [("7", ("7.0",))] * 4


@pytest.mark.slow
def test_a_run_on_a_stream_is_killed_and_resumes_exactly(tmp_path, monkeypatch):
    """The folder grows while the run is down; the run then ends with the stream, and goes on when there is more."""
    tiny_run.on_one_device(monkeypatch)
    folder = tmp_path / "folder"
    folder.mkdir()
    config = with_data(train=StreamProblems(str(folder), wait=0.0))
    config = dataclasses.replace(config, checkpoints=dataclasses.replace(config.checkpoints, every=2))
    write(folder / "a.jsonl", questions(10, 13))
    with tiny_run.dies_at(config, 2), pytest.raises(tiny_run.Died):
        run(config, tmp_path / "killed", console=tiny_run.quiet())
    write(folder / "b.jsonl", questions(40, 2))
    console = tiny_run.quiet()
    rows = run(config, tmp_path / "killed", console=console)
    assert "the stream ended after step 3 of 4" in console.file.getvalue()
    assert [(row["at"], row["step"]) for row in rows][-1][1] == 3
    write(folder / "b.jsonl", questions(50, 1))
    run(config, tmp_path / "killed", console=tiny_run.quiet())
    run(config, tmp_path / "whole", console=tiny_run.quiet())
    assert completions(tmp_path / "killed") == completions(tmp_path / "whole")
    prompts = [row["prompt"] for row in completions(tmp_path / "whole")]
    assert prompts[0] == "10+99=\n"
    setup = set_up(config)
    states = [tiny_run.state_at(tmp_path / name, setup) for name in ("killed", "whole")]
    for left, right in zip(*(map(np.asarray, jax.tree.leaves(state)) for state in states), strict=True):
        assert (left == right).all()
