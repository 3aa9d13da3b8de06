"""What a run leaves in its workdir, and that all of it but the times follows from the config."""

import ast
import dataclasses

import pytest
import tiny_run
from tiny_run import AgainstHalf, CountedEngine, Died, dies_at, lines, timeless

from prerl_jax import Phase, launch
from prerl_jax.config import AlignmentSpec
from prerl_jax.config.io import load_config
from prerl_jax.trainer.start import run

EVERY_STEP = """reward accuracy unknown solved_groups unsolved_groups zero_advantage_groups kept_fraction
trained_fraction length truncated logprob entropy clip_fraction ratio grad_norm update_norm learning_rate loss skipped
tokens sampler_logprob flops"""
EVALUATED = "avg@2 pass@2 reflections length truncated thoughts/reflection thoughts/verification"
ALIGNED = """objective logprob sampler_logprob_diff token token_weighted token/post_0-0.1 token/position_0 marginal_gap
marginal_gap_per_response pre/entropy post/entropy pre/eos post/top3"""
COMPLETED = ("reward", "verdict", "extracted", "truncated")
TIMES = "sample verify score prepare align train wait step tokens_per_second verifier_timeouts"


def test_the_files_of_a_workdir(finished):
    names = {path.name for path in finished.workdir.iterdir()}
    expected = {"config.py", "metrics.jsonl", "completions.jsonl", "summary.json", "curves.png"}
    assert names == expected | {"checkpoints", "tensorboard"}
    assert load_config(finished.workdir / "config.py") == tiny_run.config()
    assert (finished.workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((finished.workdir / "tensorboard").iterdir())
    steps = sorted(int(path.name) for path in (finished.workdir / "checkpoints").iterdir())
    assert steps == [2, 3, 4]  # the last two, and where the first phase ended


def test_each_step_has_one_line_with_all_that_is_measured(finished):
    records = lines(finished.workdir)
    phases = [(record["step"], record["phase"]) for record in records]
    assert phases == [(0, "base"), (1, "nsr_prerl"), (2, "nsr_prerl"), (3, "rl"), (4, "rl")]
    for record in records[1:]:
        names = {f"train/{name}" for name in EVERY_STEP.split()} | {f"time/{name}" for name in TIMES.split()}
        assert names <= record.keys(), names - record.keys()
        known = record["train/sampler_logprob_diff"] is not None
        assert known == (record["phase"] == "rl"), "in P(y) there are no log-probabilities of the sampler's"
        assert all(name.partition("/")[0] in ("train", "eval", "alignment", "time") for name in [*record][2:])
    evaluated = {record["step"] for record in records if {f"eval/{name}" for name in EVALUATED.split()} <= set(record)}
    aligned = {r["step"] for r in records if {f"alignment/{name}" for name in ALIGNED.split()} <= set(r)}
    assert evaluated == {0, 2, 4}
    assert aligned == {1, 3}
    assert {record["step"] for record in records[1:] if record["time/align"] > 0} == aligned
    for record in (records[1], records[3]):
        gap = record["alignment/post/logprob"] - record["alignment/pre/logprob"]
        assert record["alignment/marginal_gap"] == pytest.approx(gap, rel=1e-4)
        assert record["alignment/post/entropy"] < record["alignment/pre/entropy"]
    rl = records[3:]
    assert all(abs(record["train/ratio"] - 1) < 1e-5 and record["train/sampler_logprob_diff"] < 1e-4 for record in rl)
    assert any(record["train/grad_norm"] > 0 for record in records[1:3])
    assert any(record["train/grad_norm"] > 0 for record in rl)


def test_the_summary_has_a_row_for_the_base_and_one_a_phase(finished):
    rows = ast.literal_eval((finished.workdir / "summary.json").read_text().replace("null", "None"))
    assert rows == finished.rows
    assert [(row["at"], row["step"]) for row in rows] == [("base", 0), ("nsr_prerl", 2), ("rl", 4)]
    records = {record["step"]: record for record in lines(finished.workdir)}
    for row in rows:
        assert row["eval/avg@2"] == records[row["step"]]["eval/avg@2"]
    for text in (
        "nsr_prerl",
        "accuracy",
        str(finished.workdir / "metrics.jsonl"),
        str(finished.workdir / "checkpoints"),
    ):
        assert text in finished.output


def test_completions_are_texts_with_their_rewards(finished):
    records = lines(finished.workdir, "completions.jsonl")
    assert [record["step"] for record in records] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    verifier = tiny_run.config().data.verifier
    for record in records:
        assert set(record) == {"step", "phase", "prompt", "answer", "response", *COMPLETED}
        assert record["prompt"]
        assert record["answer"]
        right = not record["truncated"] and record["response"].endswith(f"{verifier.marker}{record['answer']}")
        assert record["reward"] == float(right), record
    assert {record["reward"] for record in records} == {0.0, 1.0}


@pytest.mark.slow
def test_a_users_engine_samples_and_the_same_config_gives_the_same_numbers(finished, tmp_path):
    """An engine is a value of the config. All metrics that do not depend on time equal those of the default engine.

    But for the last bits of the engine's log-probabilities, which it computes in other shapes than the default one.
    """
    sampling = dataclasses.replace(tiny_run.config().sampling, engine=CountedEngine())
    config = dataclasses.replace(tiny_run.config(), sampling=sampling)
    CountedEngine.calls.clear()
    run(config, tmp_path, console=tiny_run.quiet())
    evaluation, training = (2, 4), (4, 4)
    assert CountedEngine.calls == [evaluation, training, training, evaluation, training, training, evaluation]
    for found, wanted in zip(timeless(tmp_path), timeless(finished.workdir), strict=True):
        for difference in ("train/sampler_logprob_diff", "alignment/sampler_logprob_diff"):
            assert found.pop(difference, 0.0) == pytest.approx(wanted.pop(difference, 0.0), abs=1e-6)
        assert found == wanted
    for name in ("completions.jsonl", "summary.json"):
        assert (tmp_path / name).read_text() == (finished.workdir / name).read_text()
    assert "engine=CountedEngine()" in (tmp_path / "config.py").read_text()
    assert load_config(tmp_path / "config.py") == config


def test_what_fails_in_a_run_keeps_its_traceback(tmp_path, monkeypatch):
    """Only errors in the config, and those of verifiers, are one line."""

    def fail(*_):
        raise ValueError("a bug")

    monkeypatch.setattr("prerl_jax.trainer.loop.evaluate_policy", fail)
    with pytest.raises(RuntimeError, match=r"the run failed after step 0: a bug"):
        launch.main(["--config", tiny_run.COMMAND[-1], "--workdir", str(tmp_path)])
    assert lines(tmp_path) == []


@pytest.mark.slow
def test_a_phase_of_ones_own(tmp_path):
    """A frozen dataclass of a module that can be imported: it is run, saved in the config, and resumed."""
    config = dataclasses.replace(
        tiny_run.config(), phases=(Phase("own", 2, advantage=AgainstHalf(0.5)),), alignment=AlignmentSpec()
    )
    with pytest.raises(Died), dies_at(config, 1):
        run(config, tmp_path, console=tiny_run.quiet())
    assert "from tiny_run import AgainstHalf" in (tmp_path / "config.py").read_text()
    assert load_config(tmp_path / "config.py") == config
    rows = run(config, tmp_path, console=tiny_run.quiet())
    assert [row["at"] for row in rows] == ["base", "own"]
    records = lines(tmp_path)
    assert [record["step"] for record in records] == [0, 1, 2]
    assert all(record["train/kept_fraction"] == 1 and record["train/grad_norm"] > 0 for record in records[1:])
