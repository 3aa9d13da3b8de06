"""Attention against a plain softmax of all scores: in blocks, by the TPU's kernel (interpreted), on a mesh."""

import functools
import itertools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prerl_jax.models import attention, splash
from prerl_jax.models.partitioning import DEFAULT_RULES
from prerl_jax.runtime.mesh import MeshSpec, make_mesh

B, T, H, N, K = 2, 200, 4, 2, 64


@pytest.fixture(scope="module")
def arrays():
    """Queries, keys, values, segments, and cotangents that are zero on padding."""
    keys = jax.random.split(jax.random.key(0), 4)
    q, y = (jax.random.normal(k, (B, T, H, K)) for k in keys[:2])
    k, v = (jax.random.normal(k, (B, T, N, K)) for k in keys[2:])
    left_padded = jnp.where(jnp.arange(T) < 30, 0, 1)
    packed = jnp.concatenate([jnp.full(n, i) for i, n in ((1, 70), (2, 1), (3, 99), (0, 30))])
    segments = jnp.stack([left_padded, packed])
    return (q, k, v), segments, y * (segments > 0)[..., None, None]


def plain(q, k, v, segments):
    k, v = (jnp.repeat(x, H // N, axis=2) for x in (k, v))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) * K**-0.5
    at = jnp.arange(q.shape[1])
    causal = at[:, None] >= at
    allowed = causal & (segments[:, :, None] == segments[:, None, :])
    return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(jnp.where(allowed[:, None], scores, -jnp.inf)), v)


def output_and_gradient(attend, arrays):
    qkv, segments, cotangents = arrays
    out, pull = jax.vjp(lambda *x: attend(*x, segments), *qkv)
    return out, pull(cotangents)


def assert_equal_to_plain(attend, arrays):
    found, expected = (jax.jit(output_and_gradient, static_argnums=0)(f, arrays) for f in (attend, plain))
    real = (arrays[1] > 0)[..., None, None]
    np.testing.assert_allclose(jnp.where(real, found[0], 0), jnp.where(real, expected[0], 0), atol=2e-5)
    assert jnp.isfinite(found[0]).all(), "padding is finite"
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


@pytest.mark.parametrize("block", [24, 64, 512])
def test_in_blocks(monkeypatch, arrays, block):
    monkeypatch.setattr(attention, "QUERY_BLOCK", block)
    monkeypatch.setattr(attention, "SPANS", 3)
    assert_equal_to_plain(functools.partial(attention.attend, backend="xla"), arrays)


@pytest.mark.parametrize(
    ("length", "queries"),
    [(1, [1]), (2, [2]), (9, [5, 4]), (15, [5, 5, 5]), (17, [5, 5, 5, 2]), (66, [17, 17, 17, 15]), (200, [50] * 4)],
)
def test_short_rows_in_even_blocks(monkeypatch, arrays, length, queries):
    """At most four, of 4 queries or more, each against the keys up to its end."""
    monkeypatch.setattr(attention, "FEWEST_QUERIES", 4)
    attend = functools.partial(attention.attend, backend="xla")
    cut = jax.tree.map(lambda x: x[:, :length], arrays)
    assert_equal_to_plain(attend, cut)
    text = str(jax.make_jaxpr(attend)(*cut[0], cut[1]))
    products = re.findall(rf"f32\[{B},{N},(\d+),(\d+)\] = dot_general", text)
    scores = [(int(rows) // (H // N), int(keys)) for rows, keys in products[::2]]  # of each block; then its output
    assert scores == list(zip(queries, itertools.accumulate(queries), strict=True))


@pytest.mark.parametrize(("block", "sizes"), [(128, (1, 1, 1)), (256, (1, 1, 1)), (128, (1, 2, 2))])
def test_splash(monkeypatch, arrays, block, sizes):
    monkeypatch.setattr(splash, "LARGEST_BLOCK", block)
    devices = jax.devices()[: np.prod(sizes)]
    mesh = make_mesh(MeshSpec(*sizes), devices)
    kernel = functools.partial(splash.attend, mesh=mesh, rules=DEFAULT_RULES, interpret=True)
    assert_equal_to_plain(kernel, arrays)


@pytest.mark.parametrize(
    ("length", "block"), [(128, 128), (200, 256), (1024, 512), (4097, 384), (8193, 640), (9216, 768)]
)
def test_block_size(length, block):
    assert splash.block_size(length) == block


@pytest.fixture(scope="module")
def tpus():
    """What a mesh of TPUs says of itself."""

    device = types.SimpleNamespace(platform="tpu")
    return types.SimpleNamespace(shape={"data": 1, "fsdp": 4, "tensor": 2}, devices=np.array([device]))


@pytest.mark.parametrize(
    ("shape", "kv_heads", "reason"),
    [
        ((8, 256, 4, 64), 2, None),
        ((8, 256, 4, 96), 2, "head_dim is 96"),
        ((8, 72, 4, 64), 2, "rows have 72 tokens"),
        ((6, 256, 4, 64), 2, "batch axis of 6 does not divide into the 4 parts"),
        ((8, 256, 3, 64), 3, "heads axis of 3"),
    ],
)
def test_choice_on_tpus(tpus, shape, kv_heads, reason):
    choose = functools.partial(attention.choose, query=shape, kv_heads=kv_heads, mesh=tpus, rules=DEFAULT_RULES)
    assert choose("xla") == "xla"
    assert choose("auto") == ("xla" if reason else "splash")
    if reason:
        with pytest.raises(ValueError, match=reason):
            choose("splash")
    else:
        assert choose("splash") == "splash"


def test_choice_elsewhere():
    choose = functools.partial(attention.choose, query=(8, 256, 4, 64), kv_heads=2, mesh=None, rules=DEFAULT_RULES)
    assert choose("auto") == "xla"
    with pytest.raises(ValueError, match="devices are cpu"):
        choose("splash")
    with pytest.raises(ValueError, match="must be one of"):
        choose("flash")
