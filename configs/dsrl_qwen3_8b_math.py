"""DSRL on Qwen3-8B and MATH: 20 steps of NSR-PreRL, then GRPO, with the published hyper-parameters.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/dsrl_qwen3_8b_math.py --workdir /mnt/shared/dsrl_qwen3_8b_math

The model: `hf download Qwen/Qwen3-8B --local-dir Qwen/Qwen3-8B`, or --set model.path=FOLDER. The data as in
dsrl_qwen3_4b_math.py.

Hardware: written for a TPU v5e-32 (32 chips of 16 GB), not run on one. Parameters, gradient and two moments in float32
are 4 x 33 GB, 4.1 GB per chip; the cache of 64 responses of 8,192 tokens (147 kB per token) is 77 GB, 2.4 GB per chip;
each microbatch is two rows for two chips. `python -m prerl_jax.plan` says what your slice would
hold.

Expected, as published (arXiv 2604.14142, Avg@32 over six math sets): base 41.62, GRPO 57.00, DSRL 58.47. The evaluation
here is avg@20 on the three that the published code watches, of all and of each, and is not that number.
"""

import dataclasses

from prerl_jax import ContinuousBatching, MeshSpec, TrainConfig, load_config


def config() -> TrainConfig:
    small = load_config("dsrl_qwen3_4b_math")
    return dataclasses.replace(
        small,
        name="dsrl_qwen3_8b_math",
        model=dataclasses.replace(small.model, path="Qwen/Qwen3-8B"),
        sampling=dataclasses.replace(small.sampling, engine=ContinuousBatching(slots=64)),
        mesh=MeshSpec(data=1, fsdp=16, tensor=2),
    )
