"""Compiles one GRPO step of Google's Tunix and its Qwen3 for a TPU slice, ahead of time. `tpu_compile.py` runs it.

    python benchmarks/tunix_compile.py '{"topology": "v5e:4x8", "layers": 4, "rows": 32, "prompt": 1024, ...}'

Model, loss (`algo_core.grpo_loss_fn`), AdamW in `optax.MultiSteps` as its trainer wraps it for gradient accumulation,
and the body of the trainer's step are Tunix's own. The settings are those that need the least memory: splash attention,
`RematConfig.DECODER`, bfloat16 compute. The optimizer is donated, as Tunix's trainer does. Tunix's `shard` does nothing
if JAX's first device is a CPU, which it is here, so that test is removed. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tunix.models.qwen3 import model as qwen3
from tunix.rl import algo_core, common
from tunix.rl.grpo.grpo_learner import GRPOConfig

PAD, EOS = 151643, 151645


def compile_step(mesh: jax.sharding.Mesh, config: qwen3.ModelConfig, rows: int, prompt: int, response: int, parts: int):
    """(the compiled step of `rows` rows, one of `parts` steps whose gradients are accumulated; seconds to compile)."""
    qwen3.shard = lambda x, spec: jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec)))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6, weight_decay=0.01))
    tx = optax.MultiSteps(tx, parts) if parts > 1 else tx
    algorithm = GRPOConfig(num_generations=8, beta=0.0, epsilon=0.2)
    algorithm.temperature = 1.0

    def create():
        model = qwen3.Qwen3(config, rngs=nnx.Rngs(0))
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    (model_graph, model_state), (optimizer_graph, optimizer_state) = (nnx.split(x) for x in nnx.eval_shape(create))

    def placed(state):
        specs = nnx.get_partition_spec(state)
        return jax.tree.map(
            lambda s, spec: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=NamedSharding(mesh, spec)), state, specs
        )

    def loss(model, example):
        return algo_core.grpo_loss_fn(model, example, algorithm, PAD, EOS)

    def step(model_state, optimizer_state, example):
        model, optimizer = nnx.merge(model_graph, model_state), nnx.merge(optimizer_graph, optimizer_state)
        (value, aux), gradients = nnx.value_and_grad(loss, has_aux=True)(model, example)
        norm = optax.global_norm(gradients)
        optimizer.update(model, gradients)
        return nnx.state(model), nnx.state(optimizer), value, aux, norm

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec("fsdp")))

    example = common.TrainExample(
        prompt_ids=array(jnp.int32, rows, prompt),
        prompt_mask=array(jnp.int32, rows, prompt),
        completion_ids=array(jnp.int32, rows, response),
        completion_mask=array(jnp.int32, rows, response),
        ref_per_token_logps=None,
        advantages=array(jnp.float32, rows),
        old_per_token_logps=None,
    )
    start = time.perf_counter()
    with mesh:
        lowered = jax.jit(step, donate_argnums=1).lower(placed(model_state), placed(optimizer_state), example)
        compiled = lowered.compile()
    return compiled, time.perf_counter() - start


def main() -> None:
    wanted = json.loads(sys.argv[1])
    topology = topologies.get_topology_desc(platform="tpu", topology_name=wanted["topology"])
    sizes = (len(topology.devices) // wanted["tensor"], wanted["tensor"])
    mesh = jax.make_mesh(sizes, ("fsdp", "tp"), devices=topology.devices, axis_types=(AxisType.Auto,) * 2)
    config = qwen3.ModelConfig(
        **wanted["model"],
        remat_config=qwen3.RematConfig.DECODER,
        dtype=jnp.bfloat16,
        param_dtype=jnp.float32,
        use_flash_attention=True,
    )
    try:
        compiled, seconds = compile_step(
            mesh, config, wanted["rows"], wanted["prompt"], wanted["response"], wanted["microbatches"]
        )
        memory = compiled.memory_analysis()
        found = {"seconds": seconds, "peak": memory.peak_memory_in_bytes, "temporaries": memory.temp_size_in_bytes}
    except jax.errors.JaxRuntimeError as error:
        found = {"error": str(error)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
