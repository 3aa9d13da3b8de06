"""PPO with a critic on Qwen3-4B and MATH: "standard RL", the baseline that GRPO and DSRL are measured against.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/ppo_qwen3_4b_math.py --workdir /mnt/shared/ppo_qwen3_4b_math

Model, data and rollouts as in dsrl_qwen3_4b_math.py. The rest is PPO as verl's examples have it: gamma = lambda = 1,
the actor at 1e-6, the critic at 1e-5 with values clipped at 0.5, 4 minibatches per step, no KL term; the critic begins
as the policy, with a head of zeros, and is trained alone in the first 10 steps.

Hardware: written for a TPU v5e-32 and compiled for it by the TPU compiler, not run. The critic doubles the memory of
parameters and moments: 2 x 48 GB in float32, 3 GB per chip. The update of policy and critic, of 256 full rows in 8
microbatches, takes 8.7 GiB of a chip's 16 at its peak, this state included; the critic's values and the scoring of rows
take less. The cache is that of 128 responses, 4.9 GB per chip, and alignment is not measured. `python -m
prerl_jax.plan` plans it for your slice.

Expected: there is no published number for this model and data.
"""

import dataclasses

from prerl_jax import AlignmentSpec, ContinuousBatching, CriticSpec, OptimizerSpec, TrainConfig, load_config, ppo


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    return dataclasses.replace(
        base,
        name="ppo_qwen3_4b_math",
        phases=ppo(steps=348, critic_warmup=10, gamma=1.0, lam=1.0, minibatches=4),
        critic=CriticSpec(OptimizerSpec(learning_rate=1e-5, weight_decay=0.01, max_grad_norm=1.0), value_clip=0.5),
        sampling=dataclasses.replace(base.sampling, engine=ContinuousBatching(slots=128)),
        alignment=AlignmentSpec(),
    )
