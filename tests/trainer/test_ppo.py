"""A run of PPO with a critic: what it measures, and that it resumes, and computes on several devices, the same."""

import dataclasses
import shutil
import types

import jax
import numpy as np
import pytest
import tiny_run
import toy
from tiny_run import Died, dies_at, lines, state_at, timeless

from prerl_jax import Batch, Sequences, nsr_prerl, ppo
from prerl_jax.config import AlignmentSpec, CriticSpec, OptimizerSpec, TrainConfig
from prerl_jax.core.types import ValueBatch
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.trainer.batching import Batching
from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.start import run

MEASURED = """value_loss value_clip_fraction value_mean return_mean explained_variance critic_grad_norm
critic_update_norm critic_skipped"""


def config() -> TrainConfig:
    """A step of NSR-PreRL, which has no use for the critic, one that trains the critic alone, and two of PPO.

    With what published PPO has: minibatches, several epochs, and a KL penalty on every token's reward.
    """
    tiny = tiny_run.config()
    return dataclasses.replace(
        tiny,
        name="tiny_ppo",
        phases=nsr_prerl(steps=1) + ppo(steps=2, critic_warmup=1, lam=0.95, minibatches=2, epochs=2, beta=0.01),
        critic=CriticSpec(OptimizerSpec(learning_rate=3e-3)),
        alignment=AlignmentSpec(),
        checkpoints=dataclasses.replace(tiny.checkpoints, keep_last=4),
    )


@pytest.fixture(scope="module")
def setup():
    return set_up(config(), jax.devices()[:1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed: its workdir and what it printed. Not to be written to."""
    workdir, console = tmp_path_factory.mktemp("ppo"), tiny_run.quiet()
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.on_one_device(patch)
        run(config(), workdir, console=console)
    return types.SimpleNamespace(workdir=workdir, output=console.file.getvalue())


def test_what_it_measures(finished):
    assert "the critic begins from the policy, with a head of zeros" in finished.output
    before, warm, first, second = lines(finished.workdir)[1:]
    assert before["train/value_mean"] is None
    assert "train/value_loss" not in before
    for record in (warm, first, second):
        assert all(np.isfinite(record[f"train/{name}"]) for name in MEASURED.split()), record
        assert record["train/critic_update_norm"] > 0
    assert warm["train/value_mean"] == warm["train/explained_variance"] == 0, "the head begins at zero"
    assert (warm["train/skipped"], warm["train/trained_fraction"], warm["train/update_norm"]) == (4, 0, 0)
    assert warm["train/critic_skipped"] == 0
    assert first["train/value_mean"] != 0
    assert first["train/update_norm"] > 0


def test_who_moves_in_which_phase(finished, setup):
    """NSR-PreRL leaves the critic as it began, the warm-up the policy; bit for bit, moments included."""
    begun, warmed, trained = (state_at(finished.workdir, setup, step) for step in (1, 2, 3))
    trunk = {name: leaf for name, leaf in setup.load_params().items() if name != "unembed"}
    head = begun.critic.params["value_head"]
    assert not head.any()
    toy.assert_same_bits({k: v for k, v in begun.critic.params.items() if k != "value_head"}, toy.to_numpy(trunk))
    toy.assert_same_bits((warmed.params, warmed.opt_state), (begun.params, begun.opt_state))
    for state, earlier in ((warmed, begun), (trained, warmed)):
        assert (state.critic.params["value_head"] != earlier.critic.params["value_head"]).any()
    assert (trained.params["embed"] != warmed.params["embed"]).any()


@pytest.mark.slow
def test_died_and_resumed(finished, setup, tmp_path):
    """In the warm-up and in PPO; with the newest checkpoint's critic damaged, from the one before."""
    with pytest.raises(Died), dies_at(config(), 2):
        run(config(), tmp_path, console=tiny_run.quiet())
    console = tiny_run.quiet()
    with pytest.raises(Died), dies_at(config(), 1):
        run(config(), tmp_path, console=console)
    assert "resumed from the checkpoint at step 2" in console.file.getvalue()
    assert "the critic begins" not in console.file.getvalue()
    shutil.rmtree(tmp_path / "checkpoints" / "3" / "critic")
    run(config(), tmp_path, console=console)
    assert "skipped a damaged checkpoint, step 3: critic cannot be read" in console.file.getvalue()
    assert timeless(tmp_path) == timeless(finished.workdir)
    for step in (2, 3, 4):
        toy.assert_same_bits(state_at(tmp_path, setup, step), state_at(finished.workdir, setup, step))


@pytest.mark.slow
def test_eight_devices_and_microbatches_compute_the_same(finished, tmp_path, monkeypatch):
    """Sharded parameters, heads over two devices, rows over four."""
    monkeypatch.undo()
    spread = dataclasses.replace(config(), mesh=MeshSpec(data=2, fsdp=2, tensor=2), microbatches=2)
    real = set_up(spread, jax.devices())
    assert real.critic.abstract_params()["value_head"].sharding.spec == jax.sharding.PartitionSpec("fsdp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prerl_jax.trainer.start.set_up", lambda config: real)
        run(spread, tmp_path, console=tiny_run.quiet())
    for mine, theirs in zip(timeless(tmp_path), timeless(finished.workdir), strict=True):
        numbers = {n: v for n, v in mine.items() if n.startswith("train/") and v is not None}
        for name, value in numbers.items():
            edge = 0.005 * name.endswith("clip_fraction")  # counts tokens, of which one may lie on the clip's edge
            np.testing.assert_allclose(value, theirs[name], rtol=2e-3, atol=2e-4 + edge, err_msg=name)


def test_the_critics_rows_may_be_fewer_than_the_policys(setup):
    """In a run with a phase of two terms, each of which has a row for every rollout."""

    def rows(count):
        zeros = np.zeros((count, 3), np.int32)
        return Sequences(zeros, zeros, zeros, zeros > 0), np.zeros((count, 3), np.float32)

    (sequences, floats), (own, values) = rows(32), rows(16)
    packed = Batch(sequences, floats, floats, critic=ValueBatch(own, *[values] * 3))
    batch = Batching(setup).place(setup.phases[0], packed, None)
    assert {x.shape for x in jax.tree.leaves(batch.critic)} == {(16, 3)}
    assert {x.shape for x in jax.tree.leaves(dataclasses.replace(batch, critic=None))} == {(32, 3)}


@pytest.mark.slow
def test_begun_from_a_run_without_a_critic_or_with_one(finished, tmp_path):
    """The critic begins from that run's policy, or is that run's; a run without one does not ask for it."""
    console, without = tiny_run.quiet(), dataclasses.replace(config(), phases=nsr_prerl(steps=1), critic=None)
    run(without, tmp_path / "plain", init_from=str(finished.workdir), console=console)
    assert "the critic" not in console.file.getvalue()
    short = dataclasses.replace(config(), phases=ppo(steps=1, critic_warmup=0))
    run(short, tmp_path / "from_plain", init_from=str(tmp_path / "plain"), console=console)
    assert "the critic begins from the policy, with a head of zeros" in console.file.getvalue()
    assert lines(tmp_path / "from_plain")[1]["train/value_mean"] == 0
    run(short, tmp_path / "from_ppo", init_from=str(finished.workdir), console=tiny_run.quiet())
    assert lines(tmp_path / "from_ppo")[1]["train/value_mean"] != 0
