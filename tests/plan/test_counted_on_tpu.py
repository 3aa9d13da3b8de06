"""Programs whose traffic is known by hand, compiled for a TPU slice by its own compiler, without a TPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tpu_devices import slice_of

from prerl_jax.plan.count import count

pytest.importorskip("libtpu")
pytestmark = pytest.mark.slow
MIB = 2**20
WHOLE, EIGHTH = PartitionSpec(), PartitionSpec("x")


@pytest.fixture(scope="module")
def mesh():
    devices = slice_of("v5e:2x4")
    return Mesh(np.array(devices), ("x",), axis_types=(AxisType.Auto,))


def array(mesh, *shape, spec=WHOLE, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def counted(function, *arrays, **how):
    found = count(jax.jit(function, **how).lower(*arrays).compile().as_text())
    assert not found.unbounded
    return found


def near(mib):
    """This many MiB, and at most 1 % more: counters and indices."""
    return pytest.approx(mib * MIB * 1.005, rel=0.005)


def test_a_product_reads_both_matrices_and_writes_one(mesh):
    x = array(mesh, 4096, 4096)
    total = counted(lambda a, b: a @ b, x, x).total
    assert (total.flops, total.sent) == (2 * 4096**3, 0)
    assert total.hbm == near(3 * 32)


def test_a_scan_over_layers_reads_stacked_weights_once(mesh):
    def layers(x, weights):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    total = counted(layers, array(mesh, 256, 2048), array(mesh, 12, 2048, 2048)).total
    assert total.flops == 12 * 2 * 256 * 2048**2
    assert total.hbm == near(12 * 8 + 2), (
        "weights of 8 MiB a layer; activations stay on the chip, but for 1 MiB in and out"
    )


def test_a_cache_updated_in_place_costs_what_is_written(mesh):
    def fill(cache, x):
        def step(i, carry):
            cache, x = carry
            return lax.dynamic_update_slice(cache, (x + 1)[None], (i, 0, 0)), x + 1

        return lax.fori_loop(0, 100, step, (cache, x))

    found = counted(fill, array(mesh, 1024, 512, 1024), array(mesh, 512, 1024), donate_argnums=0)
    assert found.total.hbm == near(100 + 2), "1 MiB each of 100 times, of a cache of 1 GiB; 1 MiB in and out"


def test_rows_that_are_gathered_and_scattered(mesh):
    table, rows = array(mesh, 32000, 2048), array(mesh, 512, dtype=jnp.int32)
    assert counted(lambda t, i: t[i], table, rows).total.hbm == near(2 + 2)
    added = counted(lambda t, i, u: t.at[i].add(u), table, rows, array(mesh, 512, 2048), donate_argnums=0)
    assert added.total.hbm == near(2 + 2 + 2), "the updates, and their rows read and written"


def test_weights_gathered_in_a_loop_are_sent_in_each_iteration(mesh):
    def layers(weights, x):
        def layer(x, w):
            return jnp.tanh(x @ lax.all_gather(w, "x", axis=0, tiled=True)), None

        return lax.scan(layer, x, weights)[0]

    specs = (PartitionSpec(None, "x"), EIGHTH)
    mapped = jax.shard_map(layers, mesh=mesh, in_specs=specs, out_specs=EIGHTH, check_vma=False)
    found = counted(mapped, array(mesh, 12, 2048, 2048, spec=specs[0]), array(mesh, 2048, 2048, spec=EIGHTH))
    assert found.total.sent == 12 * 7 * MIB
    ((gather, times),) = found.collectives(depth=1)
    assert (gather.kind, gather.group, times, gather.arrays[0].size) == ("all-gather", 8, 12, 2048**2)


@pytest.mark.parametrize(
    ("function", "whole", "given", "result", "mib"),
    [
        (lambda x: lax.psum(x, "x"), "all-reduce", EIGHTH, WHOLE, 2 * 7 / 8),
        (lambda x: lax.psum_scatter(x, "x", tiled=True), "reduce-scatter", WHOLE, EIGHTH, 7),
        (
            lambda x: lax.ppermute(x, "x", [(i, (i + 1) % 8) for i in range(8)]),
            "collective-permute",
            EIGHTH,
            EIGHTH,
            1,
        ),
        (lambda x: lax.all_to_all(x, "x", 0, 1, tiled=True), "all-to-all", EIGHTH, EIGHTH, 7 / 8),
    ],
)
def test_collectives(mesh, function, whole, given, result, mib):
    mapped = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)(function, in_specs=given, out_specs=result)
    found = counted(mapped, array(mesh, 2048, 2048, spec=given))
    assert found.total.sent == mib * MIB
    assert [exchange.kind for exchange, _ in found.collectives()] == [whole]


def test_a_product_whose_operand_goes_around_the_ring(mesh):
    """The partitioner's loop over permutes sends at least what an all-gather would, and one or two parts more."""

    def product(x, w):
        return lax.with_sharding_constraint(x @ w, NamedSharding(mesh, PartitionSpec(None, "x")))

    columns = PartitionSpec(None, "x")
    found = counted(product, array(mesh, 8192, 4096, spec=EIGHTH), array(mesh, 4096, 8192, spec=columns))
    assert {exchange.kind for exchange, _ in found.collectives(depth=1)} == {"collective-permute"}
    assert 7 * 8 * MIB <= found.total.sent <= 9 * 8 * MIB
    assert found.total.flops == 2 * 8192 * 4096 * 1024


def test_gradients_of_split_weights_are_reduced_and_scattered(mesh):
    split = PartitionSpec(None, "x")

    def loss(weights, x):
        def layer(x, w):
            w = lax.with_sharding_constraint(w.astype(jnp.bfloat16), NamedSharding(mesh, WHOLE))
            return jnp.tanh(lax.with_sharding_constraint(x @ w, NamedSharding(mesh, EIGHTH))), None

        return lax.scan(layer, x, weights)[0].astype(jnp.float32).sum()

    weights = array(mesh, 12, 2048, 2048, spec=split, dtype=jnp.float32)
    x = array(mesh, 8192, 2048, spec=EIGHTH)
    found = counted(jax.grad(loss), weights, x, out_shardings=NamedSharding(mesh, split))
    sent = {exchange.kind: exchange.sent * times / MIB for exchange, times in found.collectives(depth=1)}
    assert sent == {"all-gather": 12 * 7, "reduce-scatter": 12 * 7}
