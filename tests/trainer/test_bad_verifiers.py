"""What a run does with a verifier, or with golds, that it cannot trust: a documented end, or the problems left out."""

import dataclasses
import json

import pytest
import tiny_run
from tiny_run import lines

from prerl_jax import grpo, launch
from prerl_jax.config import AlignmentSpec
from prerl_jax.trainer.start import run
from prerl_jax.verify import FunctionVerifier


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """Nothing of a test is kept in the user's cache of programs."""
    monkeypatch.setattr("prerl_jax.runtime.compilation.enable_cache", lambda: None)


def refused(tmp_path, capsys, *settings):
    """The error of a command that ends before its first step, after checking that nothing was written."""
    workdir = tmp_path / "workdir"
    overrides = [part for setting in settings for part in ("--set", setting)]
    assert launch.main(["--config", tiny_run.COMMAND[-1], "--workdir", str(workdir), *overrides]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert not workdir.exists()
    return error


def own(name):
    return f'data.verifier=FunctionVerifier("bad_verifiers:{name}")'


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nan", ["nan, which is not finite"]),
        ("text", ["a str, 'right', and not a number"]),
        ("a_list", ["a list, '[1.0]', and not a number"]),
        ("nothing", ["8 of the 8 problems' own answers that were checked are unknown", "returned None"]),
        ("two", ["2.0, which is not in [0, 1]", "let the verifier return Judgement(reward, 'right' or 'wrong')"]),
        ("never", ["no problem's own answer is accepted", "'#", "answer_format is '#{answer}'"]),
        ("minus_one", ["-1.0, which is not in [0, 1]"]),
    ],
)
def test_a_verifier_that_returns_what_cannot_be_trained_on(tmp_path, capsys, monkeypatch, name, says):
    monkeypatch.setattr("prerl_jax.evaluation.probe.SECONDS", 0.0)
    error = refused(tmp_path, capsys, own(name), "phases=nsr(steps=2)")
    assert error.count("\n") == 1, error
    for part in says:
        assert part in error, error


def test_rewards_of_minus_one_need_a_truncated_reward(tmp_path, capsys):
    """In a phase that does not need to know what is right."""
    error = refused(tmp_path, capsys, own("minus_one"), "phases=grpo(steps=2)")
    assert "an empty response -1, and a truncated one gets data.truncated_reward = 0" in error
    assert "Set data.truncated_reward=-1." in error


def test_the_exception_of_a_user_s_verifier_is_shown_with_its_traceback(tmp_path, capsys):
    error = refused(tmp_path, capsys, own("raises"))
    assert "KeyError" in error
    assert "return {}[response]" in error


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), [("hangs", "missed its deadline"), ("exits", "its process died")])
def test_a_verifier_that_hangs_or_exits_in_workers(tmp_path, capsys, name, how):
    workers = ("data.verify_workers=2", "data.verify_timeout=0.5")
    error = refused(tmp_path, capsys, own(name), *workers)
    assert "own answers" in error
    assert "are unknown" in error
    assert how in error


def jsonl(path, *answers):
    rows = [{"prompt": f"{n + 10}+{n + 11}=\n", "answer": answer} for n, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f'data.train=JsonlProblems(path="{path}", answer_format="#{{answer}}")'


def test_golds_that_no_verifier_can_read(tmp_path, capsys):
    """None of them: the run is refused. test_run has one of a few."""
    error = refused(tmp_path, capsys, "data.verifier=GSM8KAnswer()", jsonl(tmp_path / "x.jsonl", *["proof"] * 8))
    assert "data.train: GSM8KAnswer" in error
    assert "not a number" in error


def test_a_source_without_a_verifier(tmp_path, capsys):
    error = refused(tmp_path, capsys, 'data.verifier=BySource({"gsm8k": GSM8KAnswer()})')
    assert "data.train: the source 'lab' has no verifier" in error
    assert "BySource" in error


def test_a_format_without_a_place_for_the_answer(tmp_path, capsys):
    error = refused(tmp_path, capsys, 'data.train=JsonlProblems(path="x.jsonl", answer_format="####")')
    assert "answer_format needs {answer} in it, got '####'" in error


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("data.unknown_limit=1", "data.unknown_limit is 1.0; it must be at least 0 and below 1"),
        ("data.verify_memory=0", "data.verify_memory is 0.0; it must be above 0"),
        ("data.truncated_reward=nan", "data.truncated_reward"),
    ],
)
def test_settings_out_of_their_ranges(tmp_path, capsys, setting, says):
    assert says in refused(tmp_path, capsys, setting)


def config(name, **data):
    """Two steps of GRPO with a function as the verifier, each response in completions.jsonl."""
    tiny = tiny_run.config()
    verifier = FunctionVerifier(f"bad_verifiers:{name}")
    return dataclasses.replace(
        tiny,
        phases=grpo(steps=2),
        data=dataclasses.replace(tiny.data, verifier=verifier, **data),
        alignment=AlignmentSpec(),
        completions_per_step=16,
    )


@pytest.mark.slow
def test_verdicts_that_are_no_numbers_in_the_middle_of_a_run(tmp_path):
    with pytest.raises(Exception, match=r"the run stopped after step 0: .*nan, which is not finite"):
        run(config("nan_on_responses"), tmp_path, console=tiny_run.quiet())
    assert lines(tmp_path) == []


@pytest.mark.slow
def test_too_many_unknown_verdicts_stop_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"the run stopped after step 0: \d of the 8 verdicts of an evaluation"):
        run(config("unknown_on_responses"), tmp_path, console=tiny_run.quiet())
    held_out = FunctionVerifier("bad_verifiers:right")
    with pytest.raises(ValueError, match=r"the run stopped after step 0: \d+ of the 16 verdicts of step 1 are unknown"):
        run(config("unknown_on_responses", evaluation_verifier=held_out), tmp_path / "b", console=tiny_run.quiet())
    assert [line["step"] for line in lines(tmp_path / "b")] == [0]


@pytest.mark.slow
def test_a_run_in_which_some_verdicts_are_unknown(tmp_path):
    console = tiny_run.quiet()
    rows = run(config("unknown_where_half_is_right"), tmp_path, console=console)
    records, said = lines(tmp_path), lines(tmp_path, "completions.jsonl")
    for record in records[1:]:
        of = [row for row in said if row["step"] == record["step"]]
        unknown = sum(row["verdict"] == "unknown" for row in of)
        assert unknown > 0
        assert record["train/unknown"] == unknown / 16
        known = [row for row in of if row["verdict"] != "unknown"]
        assert record["train/reward"] == pytest.approx(sum(row["reward"] for row in known) / len(known))
        assert all(row["reward"] is None and row["extracted"] is None for row in of if row not in known)
        assert all(row["extracted"] == row["answer"] for row in of if row["verdict"] == "right")
    assert "eval/maj@2" in rows[0]
    assert "train/unknown " in console.file.getvalue()
