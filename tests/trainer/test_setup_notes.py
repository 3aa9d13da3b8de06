"""What the log says about verifiers and sources before a run."""

import dataclasses

import pytest
import tiny_run

from prerl_jax.trainer.setup import set_up
from prerl_jax.verify import BySource


@pytest.mark.parametrize(
    ("training", "evaluation", "says"),
    [
        ({"": 0, "gsmk8": 0}, None, ["data.verifier names sources that no problem has: 'gsmk8'"]),
        ({"": 0}, {"x": 0, "y": 0}, ["data.evaluation_verifier names sources that no problem has: 'x', 'y'"]),
        ({"": 0}, None, []),
    ],
)
def test_mistyped_sources_are_named(training, evaluation, says):
    config = tiny_run.config()
    good = config.data.verifier
    source = config.data.train.load()[0][0].source

    def by_source(names):
        return names and BySource({name or source: good for name in names}, default=good)

    data = dataclasses.replace(config.data, verifier=by_source(training), evaluation_verifier=by_source(evaluation))
    notes = set_up(dataclasses.replace(config, data=data)).notes
    assert [note for note in notes if "names sources" in note] == says
