"""The two train steps, the sampler and the dual-space program of a small config, compiled for a TPU slice by its own
compiler, ahead of time and without a TPU."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from prerl_jax import Batch, Prompts, Rollouts, Sequences, dsrl
from prerl_jax.config_io import load_config
from prerl_jax.runtime.mesh import MeshSpec, batch_sharding
from prerl_jax.runtime.state import abstract_state
from prerl_jax.trainer.assembly import assemble
from prerl_jax.trainer.programs import Programs

pytest.importorskip("libtpu")


@pytest.fixture(scope="module")
def programs():
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    except Exception as error:  # another process may hold libtpu's lock
        pytest.skip(f"no TPU topology: {error}")
    config = load_config("lab")
    config = dataclasses.replace(
        config,
        mesh=MeshSpec(data=1, fsdp=4, tensor=2),
        model=dataclasses.replace(config.model, compute_dtype="bfloat16", remat="full"),
        phases=dsrl(warmup=1, total=2),
        microbatches=2,
    )
    return Programs(assemble(config, topology.devices))


def rows(programs, shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(programs.assembly.mesh))


def rollouts(programs):
    config = programs.assembly.config
    b, p, r = config.sampling.prompts * config.sampling.group_size, config.data.max_prompt_tokens, 64
    shapes = {"prompt": (b, p), "prompt_mask": (b, p), "response": (b, r), "response_mask": (b, r)}
    types = {"prompt": jnp.int32, "prompt_mask": bool, "response": jnp.int32, "response_mask": bool}
    arrays = {name: rows(programs, shape, types[name]) for name, shape in shapes.items()}
    return Rollouts(**arrays, rewards=rows(programs, (b,), jnp.float32), logprobs=rows(programs, (b, r), jnp.float32))


@pytest.mark.parametrize("index", [0, 1], ids=["nsr_prerl", "rl"])
def test_train_step(programs, index):
    assembly = programs.assembly
    phase = assembly.phases[index]
    state = abstract_state(assembly.model.abstract_params(), assembly.optimizer(phase), assembly.mesh)
    shape = (32, 65 if index == 0 else 72)
    ints, floats = rows(programs, shape, jnp.int32), rows(programs, shape, jnp.float32)
    sequences = Sequences(ints, ints, ints, rows(programs, shape, bool))
    batch = Batch(sequences, floats, floats, sampler_logprobs=floats if index else None)
    compiled = programs.step(phase).lower(state, batch).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes > 0, "the donated state is updated in place"
    out_state, _ = compiled.output_shardings
    assert out_state.params["layers"]["mlp"]["gate"].spec == PartitionSpec(None, "fsdp", "tensor")


def test_sampler(programs):
    assembly = programs.assembly
    params = assembly.model.abstract_params()
    shape = (assembly.config.sampling.prompts, assembly.config.data.max_prompt_tokens)
    prompts = Prompts(
        rows(programs, shape, jnp.int32), rows(programs, shape, bool), rows(programs, shape[:1], jnp.int32)
    )
    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=NamedSharding(assembly.mesh, PartitionSpec()))
    compiled = programs.engine(assembly.phases[1]).lower(params, prompts, key).compile()
    assert "while" in compiled.as_text()


def test_dual_space_program(programs):
    config = programs.assembly.config
    few = config.alignment_prompts * config.sampling.group_size
    cut = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct((few, *s.shape[1:]), s.dtype, sharding=s.sharding), rollouts(programs)
    )
    programs.dual(1.0).lower(programs.assembly.model.abstract_params(), cut).compile()
