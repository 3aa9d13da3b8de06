"""What a phase needs beside rewards reaches it in a run: a key, the steps done, which were truncated, its own rate and
temperature."""

import dataclasses

import pytest
import tiny_run
import toy
from tiny_run import Died, dies_at, lines, state_at, timeless

import prerl_jax as pj
from prerl_jax.config import AlignmentSpec
from prerl_jax.trainer.start import run

TERM = pj.Term(pj.PostTrainSpace(), coefficient=pj.Linear(1.0, 0.0, 1))
OWN = {"temperature": 0.8, "learning_rate": pj.Linear(0.0, 3e-4, 1)}
PHASES = (
    pj.Phase("dropout", 2, pj.PromptDropout(0.5), pj.DropTruncated(pj.ConstantBaseline(0.5)), **OWN),
    pj.Phase("fading", 2, terms=(TERM,), **OWN),
)


@pytest.mark.slow
def test_a_run_with_all_of_them_resumes_bit_for_bit(tmp_path, setup):
    config = tiny_run.config()
    sampling = dataclasses.replace(config.sampling, max_new_tokens=24)
    config = dataclasses.replace(config, phases=PHASES, sampling=sampling, alignment=AlignmentSpec())
    console = tiny_run.quiet()
    run(config, tmp_path / "whole", console=console)
    assert console.file.getvalue().count("no update") == 1, "the last step has coefficient 0"
    for at in (1, 1):  # two deaths: after the first step, and after the second
        with pytest.raises(Died), dies_at(config, at):
            run(config, tmp_path / "died", console=tiny_run.quiet())
    run(config, tmp_path / "died", console=tiny_run.quiet())
    assert timeless(tmp_path / "died") == timeless(tmp_path / "whole")
    toy.assert_same_bits(*(state_at(tmp_path / name, setup, 4) for name in ("died", "whole")))
    first, second, third, fourth = lines(tmp_path / "whole")[1:]
    assert any(0 < record["train/truncated"] < 1 for record in (first, second))
    for record in (first, second):
        assert record["train/kept_fraction"] == pytest.approx(1 - record["train/truncated"])
        assert record["train/grad_norm"] > 0
    assert (third["train/skipped"], fourth["train/skipped"]) == (0, 1), "the coefficient is 1, then 0"
    assert fourth["train/kept_fraction"] == 0
    moved = [record["train/update_norm"] > 0 for record in (first, second, third)]
    assert moved == [False, True, False], "the rate of each phase's first step is 0"
    assert 0 < third["train/sampler_logprob_diff"] < 1e-5, "trained at the temperature that was sampled at"
