"""A run of a model with ids that no token has is the run of the same model without them."""

import dataclasses

import chat_lab
import jax
import numpy as np
import pytest
import tiny_run

from prerl_jax import GSPO, InitialModel, KLPenalty, Phase, dsrl
from prerl_jax.config import AlignmentSpec
from prerl_jax.runtime.mesh import MeshSpec

PHASES = (
    dataclasses.replace(dsrl(warmup=1, total=2)[0], steps=1),
    Phase("gspo", 1, objective=GSPO(), epochs=2, reference=InitialModel(), reward_shaping=KLPenalty(0.1)),
)


def steps(folder, padding, mesh, devices):
    """The metrics of a step in P(y), and of one in P(y|x) with a reference and two updates; and the run."""
    config = chat_lab.of(tiny_run.config(), chat_lab.write(folder, padding))
    config = dataclasses.replace(
        config,
        phases=PHASES,
        mesh=mesh,
        sampling=dataclasses.replace(config.sampling, max_new_tokens=24),
        alignment=AlignmentSpec(every=0),
    )
    run, _, metrics = tiny_run.steps(config, 2, devices)
    return run, metrics


@pytest.mark.slow
def test_masked_ids_change_no_metric(tmp_path):
    """Also where the vocabulary is sharded. Without the mask they would be the likeliest."""
    _, plain = steps(tmp_path / "plain", 0, MeshSpec(), jax.devices()[:1])
    sharded = MeshSpec(data=2, fsdp=2, tensor=2)
    run, padded = steps(tmp_path / "padded", 65, sharded, jax.devices())
    assert (run.setup.model.config.vocab_size, run.setup.model.valid_ids) == (88, 23)
    for wanted, found in zip(plain, padded, strict=True):
        named = [name for name in wanted if name.startswith("train/") and name != "train/flops"]
        assert len(named) > 15
        for name in named:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-3, atol=1e-5, err_msg=name)
