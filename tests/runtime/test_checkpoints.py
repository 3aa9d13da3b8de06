"""Checkpoints: bit for bit round trips, retention, damage, and checkpoints of another model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from states import abstract, assert_same, make_state

from prerl_jax.core.params import merge_params
from prerl_jax.runtime.checkpoints import Checkpoints, restore_params, restore_state
from prerl_jax.runtime.mesh import MeshSpec, make_mesh
from prerl_jax.runtime.step_files import CheckpointError, fingerprint

# Orbax leaves coroutines behind when one of them fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def opened(tmp_path):
    """Checkpoints of one folder, closed at the end; each call is a restart."""
    made = []

    def open_again(keep_last=2, best=None):
        made.append(Checkpoints(tmp_path / "checkpoints", keep_last=keep_last, best=best))
        return made[-1]

    yield open_again
    for checkpoints in made:
        checkpoints.close()


def fill(checkpoints, steps, **metrics):
    for step in steps:
        checkpoints.save(step, make_state(step), {"step": step}, {n: v[step] for n, v in metrics.items()}, False)
    checkpoints.wait()


def damage(folder, how):
    """Damages the largest file of a checkpoint: the one that the arrays are in."""
    path = max((p for p in (folder / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = path.read_bytes()
    if how == "delete":
        path.unlink()
    else:
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        path.write_bytes(data[: len(data) // 2] if how == "truncate" else flipped)


def test_frozen_parameters_are_kept_beside_the_trained_ones(opened, tmp_path):
    """They come back with the whole state, and merged where only the parameters are asked for."""
    state = make_state(3)
    frozen = {"layers": {"down": make_state(5).params["layers"]["up"]}}
    with_frozen, checkpoints = dataclasses.replace(state, frozen=frozen), opened()
    checkpoints.save(2, state, {}, {}, False)
    checkpoints.save(3, with_frozen, {}, {}, False)
    assert_same(checkpoints.restore(abstract(with_frozen)).state, with_frozen)
    folder = tmp_path / "checkpoints"
    whole = merge_params(state.params, frozen)
    assert_same(restore_params(folder, abstract(whole)).state, whole)
    assert not (folder / "2" / "frozen").exists()
    assert_same(restore_params(folder, abstract(state.params), 2).state, state.params)
    with pytest.raises(ValueError, match=r"only in the checkpoint: frozen\.layers\.down"):
        restore_state(folder, abstract(state))
    with pytest.raises(ValueError, match=r"only in the model: frozen\.layers\.down"):
        restore_state(folder, abstract(with_frozen), 2)


@pytest.mark.parametrize(
    ("rng", "dtype"),
    [(None, jnp.float32), (jax.random.key(7), jnp.bfloat16), (jax.random.key(1, impl="rbg"), jnp.float32)],
    ids=["raw-f32", "typed-bf16", "rbg-f32"],
)
def test_round_trip_is_bit_for_bit_and_on_any_mesh(opened, tmp_path, rng, dtype):
    state = make_state(3, dtype=dtype, rng=rng)
    first = opened()
    first.save(3, state, {"data": {"next_index": 24}, "text": "ü\n"}, {"a": math.nan}, False)
    restored = first.restore(abstract(state))
    assert (restored.step, restored.extra) == (3, {"data": {"next_index": 24}, "text": "ü\n"})
    assert_same(restored.state, state)
    assert jax.tree.map(lambda x: x.sharding, restored.state) == jax.tree.map(lambda x: x.sharding, state)

    other = make_state(0, dtype=dtype, rng=rng, mesh=make_mesh(MeshSpec(data=2, fsdp=4)))
    assert_same(opened().restore(abstract(other)).state, state)
    unplaced = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    assert_same(restore_state(tmp_path / "checkpoints", unplaced).state, state)
    params = restore_params(tmp_path / "checkpoints", unplaced.params)
    assert_same(params.state, state.params)
    assert (params.step, params.extra["text"]) == (3, "ü\n")


def test_the_state_may_be_donated_after_save(opened):
    state = make_state(1, width=4096)
    kept = jax.tree.map(lambda x: x.copy(), state)
    zero = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    checkpoints = opened()
    checkpoints.save(1, state, {}, {}, False)
    jax.block_until_ready(zero(state))
    assert_same(checkpoints.restore(abstract(kept)).state, kept)


def test_retention_survives_restarts(opened):
    scores = {1: 0.2, 2: 0.9, 3: 0.1, 4: 0.3, 5: 0.95}
    first = opened(keep_last=1, best="a")
    first.save(1, make_state(1), {}, {"a": scores[1]}, True)
    fill(first, [2, 3], a=scores)
    assert first.steps() == [1, 2, 3]
    second = opened(keep_last=1, best="a")
    second.restore(abstract(make_state()))
    fill(second, [4], a=scores)
    assert second.steps() == [1, 2, 4]
    fill(second, [5], a=scores)
    assert second.steps() == [1, 5]
    assert second.latest_step() == 5


@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
def test_a_damaged_newest_is_skipped_reported_and_replaced(opened, tmp_path, caplog, how):
    fill(opened(), [1, 2])
    damage(tmp_path / "checkpoints" / "2", how)
    again = opened(keep_last=1)
    assert again.steps() == [1, 2]
    restored = again.restore(abstract(make_state()))
    assert restored.step == 1
    assert_same(restored.state, make_state(1))
    assert [reason.startswith("step 2: ") and "params" in reason for reason in again.skipped] == [True]
    assert "step 2" in caplog.text
    with pytest.raises(CheckpointError, match=r"step 2: .*params"):
        again.restore(abstract(make_state()), step=2)
    fill(again, [2])
    assert again.steps() == [2]
    assert_same(again.restore(abstract(make_state())).state, make_state(2))


@pytest.mark.parametrize("part", ["record/metadata", "params/manifest.ocdbt", "state/_METADATA", "state", "record"])
def test_any_missing_part_is_damage(opened, tmp_path, part):
    fill(opened(), [1, 2])
    path = tmp_path / "checkpoints" / "2" / part
    path.rename(tmp_path / "gone")
    again = opened()
    assert again.restore(abstract(make_state())).step == 1
    fill(again, [2, 3])
    assert again.steps() == [2, 3]


def test_all_damaged(opened, tmp_path):
    fill(opened(), [1, 2])
    for step in "12":
        damage(tmp_path / "checkpoints" / step, "truncate")
    with pytest.raises(CheckpointError, match=r"step 2: .*step 1: "):
        opened().restore(abstract(make_state()))
    with pytest.raises(CheckpointError, match=r"step 2: .*step 1: "):
        restore_params(tmp_path / "checkpoints", abstract(make_state().params))


def test_going_on_from_an_older_step_replaces_what_came_after_it(opened):
    fill(opened(keep_last=3), [1, 2, 3])
    again = opened(keep_last=3)
    assert again.restore(abstract(make_state()), step=1).step == 1
    assert again.steps() == [1, 2, 3]
    again.save(2, make_state(9), {}, {}, False)
    assert again.steps() == [1, 2]
    assert_same(again.restore(abstract(make_state())).state, make_state(9))


def test_missing_and_existing_steps(opened, tmp_path):
    with pytest.raises(ValueError, match="no checkpoints"):
        opened().restore(abstract(make_state()))
    with pytest.raises(ValueError, match="no checkpoints"):
        restore_params(tmp_path / "nowhere", {})
    assert not (tmp_path / "nowhere").exists()
    checkpoints = opened()
    fill(checkpoints, [1, 2])
    with pytest.raises(ValueError, match=r"of step 5 .*\[1, 2\]"):
        checkpoints.restore(abstract(make_state()), step=5)
    with pytest.raises(ValueError, match=r"step 2 .* already"):
        fill(checkpoints, [2])
    with pytest.raises(TypeError, match="JSON"):
        checkpoints.save(3, make_state(3), {"a": object()}, {}, False)
    with pytest.raises(ValueError, match="keep_last=0"):
        opened(keep_last=0)


def test_another_model_is_an_error_that_names_leaves_and_not_damage(opened, tmp_path):
    checkpoints = opened()
    fill(checkpoints, [1, 2])
    with pytest.raises(ValueError, match=r"params\.embed: float32\[8, 512\] in the checkpoint, float32\[8, 16\]"):
        checkpoints.restore(abstract(make_state(width=16)))
    with pytest.raises(ValueError, match=r"params\.layers\.up: float32\[2, 512\] .*bfloat16\[2, 512\]"):
        checkpoints.restore(abstract(make_state(dtype=jnp.bfloat16)))
    wanted = abstract(make_state().params)
    more = {**wanted, "unembed": wanted["embed"]}
    with pytest.raises(ValueError, match=r"only in the model: params\.unembed"):
        restore_params(tmp_path / "checkpoints", more)
    with pytest.raises(ValueError, match=r"only in the checkpoint: params\.layers\.up"):
        restore_params(tmp_path / "checkpoints", {"embed": wanted["embed"]})
    assert checkpoints.skipped == []
    assert checkpoints.steps() == [1, 2]


def test_checksums_see_every_bit_and_no_sharding():
    state = make_state(2, dtype=jnp.bfloat16, rng=jax.random.key(3))
    alone = jax.tree.map(lambda x: jax.device_put(x, jax.devices()[0]), state)
    assert fingerprint(state) == fingerprint(alone)
    x = jnp.arange(6.0).reshape(2, 3)
    trees = [x, x.at[1, 2].add(1e-6), x[::-1], jnp.roll(x, 1), -x, x * 0, -(x * 0)]
    assert len({fingerprint(tree)[""][2] for tree in trees}) == len(trees)
    assert [fingerprint(v)[""][1] for v in (jnp.ones(3, bool), jnp.ones(2, jnp.int8))] == ["bool", "int8"]
