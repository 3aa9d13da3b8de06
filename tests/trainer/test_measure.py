"""The measuring command: its files, and that its numbers are those of the arrays it writes."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_run

from prerl_jax import measure
from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought


@pytest.fixture(scope="module")
def measured(tmp_path_factory, finished):
    """Of the model that a run ended with."""
    out = tmp_path_factory.mktemp("measure") / "new" / "folder"
    config = tiny_run.config()
    config = dataclasses.replace(config, alignment=dataclasses.replace(config.alignment, mean_logprob=False))
    mine = (*THOUGHTS[:2], Thought("anything", (r".+",)))
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, thoughts=mine))
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        return out, measure.measure(config, out, init_from=f"{finished.workdir}@4", groups=3, gradients=True)


@pytest.mark.slow
def test_files_and_numbers(measured):
    out, report = measured
    written = {path.name for path in out.iterdir()}
    assert {"measurement.json", "tokens.npz", "alignment.png"} <= written
    assert json.loads((out / "measurement.json").read_text())["tokens"] == report["tokens"]
    tokens = np.load(out / "tokens.npz")
    mask, right = tokens["mask"], tokens["rewards"] >= 1
    assert mask.shape == tokens["response"].shape == (12, 32)
    assert (report["responses"], report["tokens"]) == (12, mask.sum())
    assert report["accuracy"] == pytest.approx(right.mean())
    assert {f"gap_{name}.png" for name, there in (("right", right), ("wrong", ~right)) if there.any()} <= written
    metrics = report["metrics"]
    assert metrics["alignment/token"] == pytest.approx(tokens["cosine"][mask].mean(), rel=1e-5)
    assert metrics["alignment/marginal_gap"] == pytest.approx(tokens["marginal_gap"][mask].mean(), rel=1e-4)
    for space in ("pre", "post"):
        logprobs = tokens[f"logprobs_{space}"][mask]
        assert metrics[f"alignment/{space}/logprob"] == pytest.approx(logprobs.mean(), rel=1e-5)
        assert metrics[f"alignment/{space}/entropy"] == pytest.approx(tokens[f"entropy_{space}"][mask].mean(), rel=1e-4)
    assert sum(report["tokens_by"]["position"].values()) == report["tokens"]
    assert report["cosine_by"]["position"]["0"] == pytest.approx(tokens["cosine"][:, 0].mean(), rel=1e-5)
    assert {"alignment/objective", "alignment/objective_by_group/mlp"} <= set(metrics)
    assert set(report["thoughts"]) == {"transition", "reflection", "anything"}  # those of the config


@pytest.mark.slow
def test_the_trainer_and_the_sampler_agree(measured):
    """The log-probabilities in P(y|x) are those of the sampler."""
    assert measured[1]["metrics"]["alignment/sampler_logprob_diff"] < 1e-4


@pytest.mark.parametrize("groups", [0, 65])
def test_groups_that_are_not_there(groups, tmp_path):
    with pytest.raises(ValueError, match="groups cannot be measured: there are 64 problems"):
        measure.measure(tiny_run.config(), tmp_path, groups=groups)


def test_a_checkpoint_that_is_not_there(tmp_path, finished):
    with pytest.raises(ValueError, match=r"there is no checkpoint of step 77 in .*there are"):
        measure.measure(tiny_run.config(), tmp_path, init_from=f"{finished.workdir}@77")


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert measure.main(["--config", "nowhere.py", "--out", str(tmp_path / "out")]) == 1
    assert "there is no config file 'nowhere.py'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
