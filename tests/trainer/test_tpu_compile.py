"""The train steps, the sampler and the dual-space program of a small config, and attention by its kernel: compiled for
a TPU slice by its own compiler, ahead of time and without a TPU."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tpu_devices import slice_of

from prerl_jax import Batch, Prompts, Rollouts, Sequences, dsrl, ppo
from prerl_jax.config import AlignmentSpec, CriticSpec
from prerl_jax.config.io import load_config
from prerl_jax.core.types import ValueBatch
from prerl_jax.models.cache import whole_lines
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.rollout import ContinuousBatching
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding, make_mesh
from prerl_jax.trainer.critic import values_program
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import set_up

pytest.importorskip("libtpu")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def devices():
    return slice_of("v5e:2x4")


def on_the_slice(devices, **changes):
    """The lab's programs in bfloat16, for all eight devices."""
    lab = load_config("lab")
    model = dataclasses.replace(lab.model, compute_dtype="bfloat16", remat="full")
    mesh = MeshSpec(data=1, fsdp=4, tensor=2)
    config = dataclasses.replace(lab, **{"mesh": mesh, "model": model} | changes)
    return Programs(set_up(config, devices))


@pytest.fixture(scope="module")
def programs(devices):
    return on_the_slice(devices, phases=dsrl(warmup=1, total=2), microbatches=2)


def rows(programs, shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(programs.setup.mesh))


def packed(programs, shape):
    """A batch of the policy's rows."""
    ints, floats = rows(programs, shape, jnp.int32), rows(programs, shape, jnp.float32)
    sequences = Sequences(ints, ints, ints, rows(programs, shape, bool))
    return Batch(sequences, floats, floats, sampler_logprobs=floats)


def with_critics_rows(batch):
    return dataclasses.replace(batch, critic=ValueBatch(batch.sequences, *[batch.weights] * 3))


def rollouts(programs):
    config = programs.setup.config
    b, p, r = config.sampling.prompts_per_step * config.sampling.group_size, config.data.max_prompt_tokens, 64
    shapes = {"prompt": (b, p), "prompt_mask": (b, p), "response": (b, r), "response_mask": (b, r)}
    types = {"prompt": jnp.int32, "prompt_mask": bool, "response": jnp.int32, "response_mask": bool}
    arrays = {name: rows(programs, shape, types[name]) for name, shape in shapes.items()}
    return Rollouts(**arrays, rewards=rows(programs, (b,), jnp.float32), logprobs=rows(programs, (b, r), jnp.float32))


def test_train_step(programs):
    """One program serves both phases; it skips empty microbatches."""
    setup = programs.setup
    before, phase = setup.phases
    assert programs.step(before) is programs.step(phase)
    state = setup.abstract_state(phase)
    shape = programs.batching.shape
    assert (shape, setup.part_rows) == ((192, 72), 24)
    compiled = programs.step(phase).lower(state, packed(programs, shape)).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes > 0, "the donated state is updated in place"
    out_state, _ = compiled.output_shardings
    assert out_state.params["layers"]["mlp"]["gate"].spec == PartitionSpec(None, "fsdp", "tensor")


def test_gradients_pass_between_slices_once_a_step():
    """The policy's and the critic's. XLA leaves the sums of their embeddings in the loop over microbatches."""
    slices = slice_of("v5e:2x2", num_slices=2)
    mesh = MeshSpec(data=1, fsdp=2, tensor=2, replica=2)
    programs = on_the_slice(slices, phases=ppo(steps=1), critic=CriticSpec(), microbatches=2, mesh=mesh)
    setup = programs.setup
    assert [{d.slice_index for d in one.flat} for one in setup.mesh.devices] == [{0}, {1}]
    state, batch = setup.abstract_state(), with_critics_rows(packed(programs, programs.batching.shape))
    compiled = programs.step(setup.phases[0]).lower(state, batch).compile()
    loops, once = compiled.as_text().split("\nENTRY ")
    assert loops.count(" send(") <= 4
    assert once.count(" send(") >= 10


def test_ppo(devices):
    """The train step that updates policy and critic, and the program of the critic's values."""
    programs = on_the_slice(devices, phases=ppo(steps=1), critic=CriticSpec(), alignment=AlignmentSpec())
    setup, shape = programs.setup, (192, 72)
    batch = with_critics_rows(packed(programs, shape))
    state = setup.abstract_state()
    compiled = programs.step(setup.phases[0]).lower(state, batch).compile()
    out_state, _ = compiled.output_shardings
    assert out_state.critic.params["layers"]["mlp"]["gate"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert out_state.critic.params["value_head"].spec == PartitionSpec("fsdp")
    values = values_program(setup).lower(state.critic.params, rollouts(programs)).compile()
    assert "f32[48,64]" in values.as_text(), "four parts of the rows"


@pytest.mark.parametrize(("remat", "forwards"), [("attention", 1), ("full", 2)])
def test_attention_is_splash_and_is_kept_where_asked(devices, remat, forwards):
    mesh = make_mesh(MeshSpec(data=1, fsdp=4, tensor=2), devices)
    config = DecoderConfig("qwen3", 256, 128, 128, 2, 4, 2, 64, qk_norm=True)
    model = Decoder(config, compute_dtype="bfloat16", remat=remat, mesh=mesh)
    tokens = jax.ShapeDtypeStruct((4, 129), jnp.int32, sharding=batch_sharding(mesh))
    gradient = jax.grad(lambda params, x: model.hidden(params, x, x, x).astype(jnp.float32).sum())
    text = jax.jit(gradient).lower(model.abstract_params(), tokens).compile().as_text()
    kernels = re.findall(r"%splash_mha_(\w+?)_segmented\S* = ", text)
    assert sorted(kernels) == ["dkv", "dq"] + ["fwd"] * forwards


def test_sampler(programs):
    setup = programs.setup
    params = setup.model.abstract_params()
    shape = (setup.config.sampling.prompts_per_step, setup.config.data.max_prompt_tokens)
    prompts = Prompts(
        rows(programs, shape, jnp.int32), rows(programs, shape, bool), rows(programs, shape[:1], jnp.int32)
    )
    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=NamedSharding(setup.mesh, PartitionSpec()))
    columns = whole_lines(setup.config.sampling.max_new_tokens - 1)
    short = programs.engine(setup.phases[1])
    plan = short.plan(192, setup.config.data.max_prompt_tokens)
    assert (plan.tail, plan.shrink) == (24, ()), "the tail is in the chunk's program"
    compiled = dict(dataclasses.replace(short, batching=ContinuousBatching(shrink=(96,))).compile(params, prompts, key))
    assert list(compiled) == ["decode_weights", "prefill", f"decode_chunk/{columns}", "fewer_slots/96"]
    assert "while" in compiled[f"decode_chunk/{columns}"].as_text()
    cache = jax.tree.leaves(compiled["fewer_slots/96"].output_shardings)
    assert len({sharding.spec for sharding in cache}) > 1, "rows are split, and of the cache heads as well"


def test_dual_space_program(programs):
    programs.align(1.0).lower(programs.setup.model.abstract_params(), rollouts(programs)).compile()
