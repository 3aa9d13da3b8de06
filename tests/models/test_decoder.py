"""The forms in which the decoder's layers are run compute the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import prerl_jax as pj
from prerl_jax.models import rope, xla_cpu
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.remat import REMAT
from prerl_jax.runtime.mesh import MeshSpec, make_mesh

CONFIG = DecoderConfig("qwen3", 16, 16, 32, 3, 4, 2, 8, qk_norm=True, tied=True)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 16, (2, 6)), jnp.int32)
POSITIONS = jnp.broadcast_to(jnp.arange(6), (2, 6))


def hidden_and_gradient(model):
    def total(params):
        hidden = model.hidden(params, TOKENS, POSITIONS, jnp.ones_like(TOKENS))
        return jnp.sum(jnp.sin(hidden)), hidden

    return jax.jit(jax.grad(total, has_aux=True))


PARAMS = toy.random_params(Decoder(CONFIG))


@pytest.fixture(scope="module")
def scanned():
    return hidden_and_gradient(Decoder(CONFIG, unroll=False))(PARAMS)


@pytest.mark.parametrize("remat", REMAT)
def test_unrolled_layers_are_the_scanned_ones(scanned, remat):
    toy.assert_close(hidden_and_gradient(Decoder(CONFIG, unroll=True, remat=remat))(PARAMS), scanned, atol=1e-5)


def test_rotations_taken_once_are_the_rotations():
    freqs = rope.frequencies(8, 100.0, None)
    angles = np.asarray(POSITIONS)[..., None] * freqs
    for found in (rope.rotations(POSITIONS, freqs), jax.jit(xla_cpu.rotations_once)(POSITIONS, freqs)):
        toy.assert_close(found, (np.cos(angles), np.sin(angles)))


@pytest.mark.parametrize(
    ("layers", "unroll", "processes", "loops"),
    [(2, None, 1, 0), (2, False, 1, 1), (3, None, 1, 1), (3, None, 2, 0)],
)
def test_only_deep_models_of_one_process_are_scanned_on_a_cpu(layers, unroll, processes, loops, monkeypatch):
    monkeypatch.setattr("prerl_jax.models.xla_cpu.UNROLLED_LAYERS", 2)
    monkeypatch.setattr("jax.process_count", lambda: processes)
    config = DecoderConfig("qwen3", 16, 16, 32, layers, 4, 2, 8)
    model = Decoder(config, unroll=unroll)
    text = str(jax.make_jaxpr(model.hidden)(model.abstract_params(), TOKENS, POSITIONS, jnp.ones_like(TOKENS)))
    assert text.count("scan[") == loops + 1, "cos and sin are taken in a loop of their own"


def test_a_mesh_of_explicit_axes_is_refused_with_the_remedy():
    """It is what `jax.make_mesh` gives today; under it a lookup in a sharded embedding fails."""
    axes = ("data", "fsdp", "tensor")
    with pytest.raises(ValueError, match=r"axes data, fsdp, tensor are Explicit.*prerl_jax\.make_mesh"):
        Decoder(CONFIG, mesh=jax.make_mesh((2, 4, 1), axes))
    auto = jax.make_mesh((2, 4, 1), axes, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    assert Decoder(CONFIG, mesh=auto).mesh is auto
    assert Decoder(CONFIG, mesh=make_mesh(MeshSpec(data=2))).mesh.shape["fsdp"] == 4


def test_ids_that_no_token_has_have_no_probability():
    logits = Decoder(CONFIG, valid_ids=11).head(PARAMS).logits(jnp.ones((3, 16)))
    assert (logits[:, 11:] == -jnp.inf).all()
    toy.assert_same_bits(logits[:, :11], Decoder(CONFIG).head(PARAMS).logits(jnp.ones((3, 16)))[:, :11])


@pytest.mark.slow
def test_ids_that_no_token_has():
    """Sampled and scored as with a vocabulary without them, though they are the likeliest; also with a gradient."""
    known, rows = 11, 64
    short = toy.random_params(Decoder(dataclasses.replace(CONFIG, vocab_size=known)))
    padded = short | {"embed": jnp.concatenate([short["embed"], 9.0 * short["embed"][:5]])}
    models = {
        "short": (Decoder(dataclasses.replace(CONFIG, vocab_size=known)), short),
        "padded": (Decoder(CONFIG, valid_ids=known), padded),
    }
    prompts = pj.Prompts(TOKENS[:, :3] % known, jnp.ones((2, 3), bool))

    def of(model, params):
        config = pj.SamplerConfig(8, stop_tokens=(3,))
        rollouts = jax.jit(pj.make_sampler(model, config, rows))(params, prompts, jax.random.key(0))

        def score(params):
            sequences = pj.PostTrainSpace()(rollouts)
            hidden = model.hidden(params, sequences.tokens, sequences.positions, sequences.segments)
            logprobs, entropy = pj.token_logprobs(hidden, model.head(params), sequences.tokens)
            logprobs, entropy = (jnp.where(sequences.mask, x, 0.0) for x in (logprobs, entropy))
            return logprobs.sum() + entropy.sum(), logprobs[:, 3:]

        gradient, logprobs = jax.jit(jax.grad(score, has_aux=True))(params)
        return rollouts, logprobs, gradient

    (one, _, wanted), (two, logprobs, gradient) = (of(*made) for made in models.values())
    toy.assert_same_bits(one.response, two.response)
    assert two.response.max() < known
    toy.assert_close(logprobs, two.logprobs, atol=1e-4)
    assert not np.asarray(gradient["embed"][known:]).any()
    toy.assert_close(gradient | {"embed": gradient["embed"][:known]}, wanted, atol=1e-3)
