"""A token-wise loss whose gradient is taken on the way, against plain differentiation of the same loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding, PartitionSpec

import prerl_jax as pj
from prerl_jax.core.fused import fused_loss, losses_and_cotangents
from prerl_jax.runtime.mesh import MeshSpec, make_mesh

B, T, D, V = 4, 8, 6, 16
RNG = np.random.default_rng(0)
HIDDEN, UNEMBEDDING = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((B, T, D), (D, V)))
TOKENS = jnp.asarray(RNG.integers(0, V, (B, T)), jnp.int32)
WEIGHTS = jnp.asarray(RNG.normal(size=(B, T)), jnp.float32)


def squares(logprobs, entropy, data):
    """A loss that is linear in neither, of data with a float and an integer array."""
    weights, tokens = data
    return (weights * (logprobs**2 + 0.3 * entropy**3 + tokens),), {"both": logprobs * entropy}


def linear(logprobs, entropy, data):
    return (data[0] * logprobs, data[0] ** 2 * jnp.sin(logprobs)), {"logprob": logprobs, "entropy": entropy}


def watched(logprobs, entropy, data):
    """A loss of the log-probabilities alone; entropies are metrics."""
    weights, tokens = data
    return (weights * (logprobs**2 + tokens),), {"both": logprobs * entropy, "entropy": entropy}


LOSSES = {"of both": (squares, True), "of log-probabilities": (watched, False)}


def plain(terms, temperature, k=0):
    """The k-th loss by plain differentiation of all logits."""

    def total(hidden, unembedding, weights):
        table = jax.nn.log_softmax(hidden[:, :-1] @ unembedding / temperature)
        chosen = jnp.take_along_axis(table, TOKENS[:, 1:, None], axis=-1)[..., 0]
        entropy = -(jnp.exp(table) * table).sum(axis=-1)
        losses, metrics = terms(chosen, entropy, (weights[:, 1:], TOKENS[:, 1:]))
        return losses[k].sum(), {name: x.sum() for name, x in metrics.items()}

    return total


def fused(temperature, chunk, terms=squares, entropy=True):
    def total(hidden, unembedding, weights):
        settings = {"temperature": temperature, "chunk": chunk, "entropy": entropy}
        return fused_loss(terms, hidden, pj.Head(unembedding), TOKENS, (weights, TOKENS), **settings)

    return total


@pytest.mark.parametrize("chunk", [None, 3])
def test_rows_of_one_token_have_nothing_to_predict(chunk):
    """Such as P(y) without a prefix, where a response is one token."""
    args = HIDDEN[:, :1], UNEMBEDDING, TOKENS[:, :1], (WEIGHTS[:, :1], TOKENS[:, :1])
    settings = {"chunk": chunk, "entropy": True}
    loss = jax.value_and_grad(lambda h, u: fused_loss(squares, h, pj.Head(u), *args[2:], **settings)[0], (0, 1))
    value, gradients = loss(*args[:2])
    assert value == 0
    toy.assert_same_bits(gradients, jax.tree.map(jnp.zeros_like, args[:2]))


@pytest.mark.parametrize(("chunk", "temperature"), [(1, 0.7), (3, 1.0), (None, 1.5)])
@pytest.mark.parametrize(("terms", "entropy"), LOSSES.values(), ids=LOSSES)
def test_value_and_gradient_of_everything_that_it_depends_on(terms, entropy, chunk, temperature):
    """Of the hidden states, of the unembedding, and of the float arrays that the loss reads."""
    args, loss = (HIDDEN, UNEMBEDDING, WEIGHTS), fused(temperature, chunk, terms, entropy)
    found, wanted = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True))(*args)
        for f in (loss, plain(terms, temperature))
    )
    toy.assert_close(found, wanted, rtol=2e-5, atol=2e-5)
    toy.assert_close(jax.jit(loss)(*args), wanted[0], rtol=2e-5, atol=2e-5)


def test_the_gradient_is_scaled_by_what_comes_from_outside():
    def scaled(f):
        return jax.jit(jax.grad(lambda h: jnp.exp(0.01 * f(h, UNEMBEDDING, WEIGHTS)[0])))(HIDDEN)

    toy.assert_close(scaled(fused(1.0, 3)), scaled(plain(squares, 1.0)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("terms", "entropy"), LOSSES.values(), ids=LOSSES)
def test_the_gradient_of_the_gradient_is_right_and_forward_mode_is_refused(terms, entropy):
    def norm(f):
        return jax.jit(jax.grad(lambda w: (jax.grad(lambda h: f(h, w, WEIGHTS)[0])(HIDDEN) ** 2).sum()))(UNEMBEDDING)

    toy.assert_close(norm(fused(1.0, 3, terms, entropy)), norm(plain(terms, 1.0)), rtol=1e-3, atol=1e-3)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda h: fused(1.0, 3)(h, UNEMBEDDING, WEIGHTS)[0], (HIDDEN,), (HIDDEN,))


def test_several_losses_at_once():
    found = losses_and_cotangents(linear, HIDDEN, pj.Head(UNEMBEDDING), TOKENS, (WEIGHTS, TOKENS), 2, chunk=3)
    for k in range(2):
        (loss, sums), gradient = jax.value_and_grad(plain(linear, 1.0, k), argnums=(0, 1), has_aux=True)(
            HIDDEN, UNEMBEDDING, WEIGHTS
        )
        d_hidden, d_head = found[2][k]
        toy.assert_close(
            (found[0][k], found[1], (d_hidden, d_head.weights)), (loss, sums, gradient), rtol=2e-5, atol=2e-5
        )


def test_bfloat16_is_summed_in_float32():
    """The gradient of the unembedding over 7 chunks is that over one, to bfloat16's last bit."""
    half = HIDDEN.astype(jnp.bfloat16), UNEMBEDDING.astype(jnp.bfloat16)
    differentiated = [jax.jit(jax.grad(fused(1.0, chunk), argnums=(0, 1), has_aux=True)) for chunk in (1, 7)]
    gradients = [function(*half, WEIGHTS)[0] for function in differentiated]
    assert [g.dtype for g in gradients[0]] == [jnp.bfloat16] * 2
    wide = jax.grad(lambda *a: plain(squares, 1.0)(*a, WEIGHTS)[0], argnums=(0, 1))
    wanted = wide(*(x.astype(jnp.float32) for x in half))
    for found in gradients:
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.02, atol=0.02 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_certain_tokens(dtype):
    """Where p is near 1, all that is left are the others' probabilities; and a token of probability 0."""
    hidden, gaps = jnp.ones((1, 2, 1), dtype), jnp.asarray([[0.0, -8.0, -10.0, -100.0]], dtype)
    terms = lambda logprobs, entropy, data: ((logprobs,), {"entropy": entropy})  # noqa: E731
    loss = lambda h, w, target: fused_loss(terms, h, pj.Head(w), jnp.asarray([[0, target]]), None)  # noqa: E731
    (value, metrics), (d_hidden, d_gaps) = jax.value_and_grad(loss, (0, 1), has_aux=True)(hidden, gaps, 0)
    total = 1 + np.exp(-8.0) + np.exp(-10.0)
    p = np.exp([-8.0, -10.0]) / total
    entropy = np.log(total) + (p * [8, 10]).sum()
    rtol = 1e-2 if dtype == "bfloat16" else 1e-5
    np.testing.assert_allclose(value, -np.log(total), atol=1e-7)
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-3)
    np.testing.assert_allclose(d_gaps[0, :3].astype("float32"), [p.sum(), *-p], rtol=rtol)
    np.testing.assert_allclose(d_hidden[0, 0].astype("float32"), [(p * [8, 10]).sum()], rtol=rtol)
    value, (_, d_gaps) = jax.value_and_grad(lambda h, w: loss(h, w, 3)[0], (0, 1))(hidden, gaps)
    np.testing.assert_allclose(value, -100 - np.log(total), rtol=1e-6)
    np.testing.assert_allclose(d_gaps[0].astype("float32"), [-1 / total, *-p, 1], rtol=rtol)


def test_the_entropy_in_bfloat16_is_that_of_the_logits():
    """Not that of the gradient's rounded products, which is off by their rounding times the logits."""
    half, unembedding = HIDDEN.astype(jnp.bfloat16), 4 * UNEMBEDDING.astype(jnp.bfloat16)
    function = jax.jit(jax.grad(fused(1.0, 3, watched, entropy=False), has_aux=True))
    wide = (half.astype(jnp.float32), unembedding.astype(jnp.float32), WEIGHTS)
    toy.assert_close(function(half, unembedding, WEIGHTS)[1], plain(watched, 1.0)(*wide)[1], rtol=2e-5, atol=2e-5)


def test_on_a_mesh():
    """Rows over data, the vocabulary over tensor."""
    mesh = make_mesh(MeshSpec(data=2, tensor=4))
    specs = PartitionSpec("data"), PartitionSpec(None, "tensor"), PartitionSpec("data")
    args = [
        jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip((HIDDEN, UNEMBEDDING, WEIGHTS), specs, strict=True)
    ]
    for terms, entropy in LOSSES.values():
        function = jax.jit(jax.value_and_grad(fused(0.7, 3, terms, entropy), argnums=(0, 1), has_aux=True))
        toy.assert_close(function(*args), function(HIDDEN, UNEMBEDDING, WEIGHTS), atol=1e-5)


@dataclasses.dataclass(frozen=True)
class General:
    """An objective without the declaration that its loss is token by token."""

    inner: pj.ClippedPG
    traits = pj.ObjectiveTraits()

    def __call__(self, logprobs, batch, entropy):
        return self.inner(logprobs, batch, entropy)


def test_the_declaration_changes_nothing_but_the_way():
    model, objective = toy.Toy(), pj.ClippedPG()
    batch = pj.make_prepare(pj.grpo(steps=1)[0], 4)(toy.rollouts())
    batch = dataclasses.replace(batch, sampler_logprobs=None, old_logprobs=jnp.where(batch.sequences.mask, -2.5, 0))
    found, wanted = (
        jax.jit(jax.value_and_grad(pj.make_loss(model, o, chunk=3), has_aux=True))(model.init(), batch)
        for o in (objective, General(objective))
    )
    toy.assert_close(found, wanted)


@pytest.mark.parametrize("metrics", [(), ("entropy",)], ids=["loss alone", "entropy a metric"])
def test_a_chunk_of_logits_is_held_once(metrics):
    """What XLA:CPU would not do of itself: it overwrites them with their cotangent."""
    rows, length, width, vocab, chunk = 4, 25, 8, 1 << 14, 8

    def loss(hidden, unembedding, tokens, weights):
        terms = lambda logprobs, entropy, w: ((w * logprobs,), dict.fromkeys(metrics, entropy))  # noqa: E731
        return fused_loss(terms, hidden, pj.Head(unembedding), tokens, weights, chunk=chunk)

    shapes = ((rows, length, width), jnp.float32), ((width, vocab), jnp.float32)
    shapes = *shapes, ((rows, length), jnp.int32), ((rows, length), jnp.float32)
    program = jax.jit(jax.grad(loss, (0, 1), has_aux=True)).lower(*(jax.ShapeDtypeStruct(*s) for s in shapes))
    temporaries = program.compile().memory_analysis().temp_size_in_bytes
    logits, gradient = 4 * rows * chunk * vocab, 4 * width * vocab
    assert logits <= temporaries < 1.1 * (logits + gradient)
