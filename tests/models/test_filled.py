"""Attention to the filled columns of a cache, by its kernel: the same as plain attention, and nothing else is read.

The kernel runs in interpret mode. The last tests compile it for TPUs, ahead of time and without a TPU.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding, PartitionSpec
from tpu_devices import slice_of

from prerl_jax import Prompts, SamplerConfig
from prerl_jax.models.cache import Cache, hold, reader
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.filled import HELD, Filled, attend, attend_filled, block_columns, find, find_filled, misfit
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.partitioning import DEFAULT_RULES, partition_spec
from prerl_jax.rollout import ContinuousBatching
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, make_mesh

CONFIG = DecoderConfig("qwen3", 64, 32, 64, 2, 4, 2, 64, qk_norm=True)


def listed(filled: Filled) -> list[tuple[int, int]]:
    """The (row, block) pairs that the kernel reads, in order."""
    n = int(filled.blocks[0])
    return list(zip(filled.row[:n].tolist(), filled.block[:n].tolist(), strict=True))


def fetched_blocks(start: int, count: int, columns: int, size: int) -> list[int]:
    """The blocks of a row that must be read: those with a filled column, in the columns' order."""
    return list(dict.fromkeys((start + n) % columns // size for n in range(count)))


def test_blocks_by_hand():
    """Rings of 12 columns in blocks of 4."""
    start, count = jnp.array([0, 3, 11, 5, 9, 4, 0]), jnp.array([0, 1, 2, 12, -1, 8, 5])
    found = listed(find_filled(start, count, 12, 4))
    assert found == [(1, 0), (2, 2), (2, 0), (3, 1), (3, 2), (3, 0), (5, 1), (5, 2), (6, 0), (6, 1)]


def test_without_a_filled_row_one_step_is_left():
    assert listed(find_filled(jnp.array([1, 2]), jnp.array([0, 0]), 12, 4)) in ([(0, 0)], [(1, 0)])


@pytest.mark.parametrize(("columns", "size"), [(24, 8), (21, 8), (8, 8), (9, 8), (5, 5)])
def test_every_block_with_a_filled_column_is_read_once(columns, size):
    pairs = [(s, c) for s in range(columns) for c in range(columns + 1)]
    start, count = (jnp.array(x, jnp.int32) for x in zip(*pairs, strict=True))
    expected = [(row, b) for row, (s, c) in enumerate(pairs) for b in fetched_blocks(s, c, columns, size)]
    assert listed(find_filled(start, count, columns, size)) == expected


def test_size_of_a_block():
    """Blocks of Qwen3-4B: whole, on four chips, in int8; a short ring is one block."""
    assert [block_columns(8192, n) for n in (8 * 128 * 2, 2 * 128 * 2, 8 * 128)] == [256, 512, 512]
    assert block_columns(8192, 32 * 128 * 4) == 128
    assert block_columns(100, 2048) == 100


def random(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def caches(rng, groups: int, size: int, padded: int, columns: int, dtype: str | None, layers: int = 2) -> Cache:
    """A cache of random numbers, with 2 heads of size 8, and prompts of random lengths."""

    def pair(rows, columns):
        return hold(random(rng, layers, rows, 2, 8, columns), 3, dtype), hold(
            random(rng, layers, rows, 2, columns, 8), 4, dtype
        )

    lengths = rng.integers(1, padded + 1, groups)
    lengths[0] = padded
    mask = jnp.asarray(np.arange(padded) >= padded - lengths[:, None])
    return Cache(*pair(groups, padded), mask, *pair(groups * size, columns))


@functools.partial(jax.jit, static_argnames="mesh")
def both(cache, query, lengths, clock, layer, mesh=None):
    """(attention by the kernel, plain attention)."""
    prompt, ring = (cache.prompt_key, cache.prompt_value), (cache.key, cache.value)
    filled = find(cache, lengths, clock, mesh, DEFAULT_RULES)
    y = attend(query, prompt, ring, layer, filled, mesh, DEFAULT_RULES, interpret=True)
    return y, reader(cache, lengths, clock)(query, prompt, ring, layer)


@pytest.mark.parametrize(
    ("groups", "size", "padded", "columns", "dtype"),
    [
        (5, 1, 13, 16, None),
        (3, 2, 7, 600, "int8"),
        pytest.param(2, 4, 300, 24, None, marks=pytest.mark.slow),
        pytest.param(3, 2, 600, 520, None, marks=pytest.mark.slow),
        pytest.param(5, 1, 13, 16, "int8", marks=pytest.mark.slow),
    ],
)
def test_equals_plain_attention(groups, size, padded, columns, dtype):
    """Rings that have come round or not, whole blocks or not; rows with one token, all columns, and any number."""
    rng = np.random.default_rng(groups)
    cache, query = caches(rng, groups, size, padded, columns, dtype), random(rng, groups * size, 6, 8)
    for clock in (columns - 1, 3 * columns + 2, 5 * columns + columns // 2):
        lengths = rng.integers(0, columns, groups * size)
        lengths[:3] = 0, columns - 1, columns // 2
        y, expected = both(cache, query, jnp.asarray(lengths), jnp.int32(clock), jnp.int32(1))
        np.testing.assert_allclose(y, expected, atol=2e-6)


def test_rows_that_are_done_are_not_read():
    """Prompts are left out as well, once none of their rows is active."""
    rng = np.random.default_rng(0)
    cache, lengths = caches(rng, 3, 2, 9, 16, None), jnp.array([3, -1, -1, -1, -1, 15])
    prompts, responses = find(cache, lengths, jnp.int32(20), None, DEFAULT_RULES)
    assert listed(prompts) == [(0, 0), (2, 0)]
    assert listed(responses) == [(0, 0), (5, 0)]


def test_other_blocks_are_not_read():
    """NaN in every block without a filled column changes nothing."""
    rng, columns, size = np.random.default_rng(1), 44, 8
    start, count = np.array([40, 3, 0, 17, 8]), np.array([9, 1, 44, 0, 8])
    key, value, query = random(rng, 1, 5, 2, 8, columns), random(rng, 1, 5, 2, columns, 8), random(rng, 5, 2, 3, 8)
    read = np.zeros((5, columns), bool)
    for row in range(5):
        for block in fetched_blocks(start[row], count[row], columns, size):
            read[row, block * size : (block + 1) * size] = True
    poisoned = jnp.where(read[:, None, None], key, jnp.nan), jnp.where(read[:, None, :, None], value, jnp.nan)
    filled = find_filled(jnp.asarray(start), jnp.asarray(count), columns, size)

    def of(key, value):
        held = hold(key, 3, None), hold(value, 4, None)
        return attend_filled(query, *held, jnp.int32(0), filled, interpret=True)

    for whole, found in zip(of(key, value), of(*poisoned), strict=True):
        np.testing.assert_array_equal(whole, found)


@pytest.mark.parametrize("dtype", [None, pytest.param("int8", marks=pytest.mark.slow)])
def test_on_a_mesh(dtype):
    """Rows over four devices, heads over two: each device reads its own rows and heads. Done rows do no harm."""
    mesh, rng = make_mesh(MeshSpec(data=2, fsdp=2, tensor=2)), np.random.default_rng(2)
    cache, query = caches(rng, 4, 2, 9, 16, dtype), random(rng, 8, 4, 8)
    held = NamedSharding(mesh, partition_spec(DEFAULT_RULES, HELD))
    parts = {n: jax.device_put(getattr(cache, n), held) for n in ("prompt_key", "prompt_value", "key", "value")}
    lengths = jnp.array([3, -1, 15, 0, -1, -1, 7, 8])
    y, expected = both(dataclasses.replace(cache, **parts), query, lengths, jnp.int32(20), jnp.int32(1), mesh)
    active = np.asarray(lengths) >= 0
    np.testing.assert_allclose(y[active], expected[active], atol=2e-6)


def test_where_the_kernel_does_not_fit():
    mesh = make_mesh(MeshSpec(data=4, fsdp=1, tensor=2))
    assert "there is no mesh" in misfit(CONFIG, None, DEFAULT_RULES)
    assert misfit(CONFIG, mesh, DEFAULT_RULES) == "the devices are cpu, and the kernel is for tpu"
    assert not Decoder(CONFIG, mesh=mesh, unroll_decode=False).reads_filled


@pytest.mark.slow
def test_continuous_batching_draws_the_same_tokens(monkeypatch):
    """More rows than slots, so that slots are refilled, and a ring that comes round."""
    model = Decoder(CONFIG, unroll_decode=False)
    params = model.init(jax.random.key(0))
    tokens = np.asarray(jax.random.randint(jax.random.key(1), (4, 9), 1, 64))
    prompts = Prompts(tokens, np.arange(9) >= np.array([[0], [3], [7], [8]]), np.arange(4))

    def sample(**given):
        batching = ContinuousBatching(slots=3, chunk=5, shrink=(), **given)
        engine = batching.make(model, SamplerConfig(24, stop_tokens=(1, 2, 3)), 2)
        return engine.sample(params, prompts, jax.random.key(2)).rollouts

    expected = sample(rings=(23,))
    monkeypatch.setattr(Decoder, "reads_filled", True)
    with pltpu.force_tpu_interpret_mode():
        found = sample()
    np.testing.assert_array_equal(found.response, expected.response)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)
    assert len(set(expected.response_mask.sum(axis=1).tolist())) > 2, "responses differ in length"


# Compiled for a TPU


@pytest.fixture(scope="module")
def devices():
    return slice_of("v5e:2x4")


def decode_program(devices, config, spec, dtype):
    """The program that decodes a chunk in 16 slots, with a ring of 8,192 columns."""
    mesh = make_mesh(spec, devices)
    model = Decoder(config, compute_dtype="bfloat16", mesh=mesh)
    batching = ContinuousBatching(slots=16, tensor=spec.tensor)
    engine = batching.make(model, SamplerConfig(8192, stop_tokens=(1,), cache_dtype=dtype), 4)

    def rows(shape, kind):
        return jax.ShapeDtypeStruct(shape, kind, sharding=batch_sharding(mesh))

    prompts = Prompts(rows((8, 300), jnp.int32), rows((8, 300), bool), rows((8,), jnp.int32))
    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=NamedSharding(mesh, PartitionSpec()))
    compiled = dict(engine.compile(model.abstract_params(), prompts, key))
    names = ["decode_weights", "prefill", "decode_chunk/8192"]
    assert list(compiled) == names, "one ring, which need not grow; no fewer slots"
    return compiled["decode_chunk/8192"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "head_dim", "dtype", "local"),
    [
        (MeshSpec(data=2, fsdp=1, tensor=4), 128, None, (8, 2)),
        (MeshSpec(data=4, fsdp=2, tensor=1), 64, "int8", (2, 8)),
    ],
)
def test_the_decode_loop_writes_the_ring_in_place(devices, spec, head_dim, dtype, local):
    """Two layers of the width of Qwen3-4B. No operation makes an array of the ring's size but the writes of columns.

    Of int8, the scales are left out: here they are few enough for the compiler to keep them in the chip's VMEM.
    """
    config = DecoderConfig("qwen3", 4096, 2560, 9728, 2, 32, 8, head_dim, qk_norm=True)
    compiled = decode_program(devices, config, spec, dtype)
    rows, heads = local
    shapes = f"2,{rows},{heads},({head_dim},8192|8192,{head_dim})"
    found = re.findall(rf" = \w+\[{shapes}\]\S* ([\w-]+)\(", text := compiled.as_text())
    opcodes = {opcode for _, opcode in found}
    assert opcodes <= {"parameter", "get-tuple-element", "dynamic-update-slice", "bitcast"}
    assert "dynamic-update-slice" in opcodes
    kernels = re.findall(r"%attend_filled\S* = .*custom_call_target=\"tpu_custom_call\"", text)
    assert len(kernels) == 2, "prompts and responses, in the loop over the layers"
    column = 2 * (head_dim * 2 if dtype is None else head_dim + 4)
    lanes = max(128 // head_dim, 1)  # a line of memory has 128 numbers: smaller heads leave the rest empty
    updated = compiled.memory_analysis().alias_size_in_bytes
    assert updated < 1.02 * 2 * rows * heads * (8192 + 300) * column * lanes, "nothing else is padded"


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("dtype", [None, "int8"])
def test_the_tpu_compiler_takes_the_kernel(devices, head_dim, dtype):
    """1, 7 and 32 queries of a key, whole and partial blocks, rings shorter than a block."""
    mesh = make_mesh(MeshSpec(data=1, fsdp=1, tensor=1), devices[:1])
    place = NamedSharding(mesh, PartitionSpec())

    def struct(shape, kind):
        return jax.ShapeDtypeStruct(shape, kind, sharding=place)

    def run(query, cache, layer, start, count):
        filled = find_filled(start, count, cache[1].data.shape[3], 256)
        return attend_filled(query, *cache, layer, filled)

    for size, columns in [(1, 1024), (7, 1024), (32, 1024), (4, 1000), (4, 17)]:
        key, value = (
            struct((2, 4, 2, head_dim, columns), jnp.bfloat16),
            struct((2, 4, 2, columns, head_dim), jnp.bfloat16),
        )
        cache = jax.eval_shape(lambda k, v: (hold(k, 3, dtype), hold(v, 4, dtype)), key, value)
        cache = jax.tree.map(lambda x: struct(x.shape, x.dtype), cache)
        rows = struct((4,), jnp.int32)
        arguments = struct((4, 2, size, head_dim), jnp.bfloat16), cache, struct((), jnp.int32), rows, rows
        assert "tpu_custom_call" in jax.jit(run).lower(*arguments).compile().as_text()
