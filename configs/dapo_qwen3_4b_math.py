"""DAPO on Qwen3-4B and MATH, with the hyper-parameters published for a larger model and another data set.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/dapo_qwen3_4b_math.py --workdir /mnt/shared/dapo_qwen3_4b_math

Model and data as in dsrl_qwen3_4b_math.py. The rest is DAPO's (arXiv 2503.14476): 512 x 16 responses per step, of up to
20,480 tokens, of which the last 4,096 are penalised; clip 0.2 / 0.28, token mean, no KL; 16 minibatches of 512
responses; AdamW at 1e-6 after a warm-up of 20 steps, weight decay 0.1. Groups that are all right or all wrong are
replaced by groups of further prompts, which are sampled at most 3 times per step.

Hardware: written for 32 chips of 95 GB (TPU v5p-64), not run on any. The cache of 96 responses of 21,504 tokens
(147 kB per token) is 304 GB, 9.5 GB per chip; a microbatch is one row per chip. `python -m prerl_jax.plan` plans it
for your slice.

Expected: there is no published number for this model and data.
"""

import dataclasses

from prerl_jax import AlignmentSpec, ContinuousBatching, TrainConfig, Warmup, dapo, load_config


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    (phase,) = dapo(steps=350, overlong_buffer=4096)
    phase = dataclasses.replace(phase, minibatches=16, max_resamples=3, learning_rate=Warmup(20, then=1e-6))
    return dataclasses.replace(
        base,
        name="dapo_qwen3_4b_math",
        phases=(phase,),
        sampling=dataclasses.replace(
            base.sampling,
            prompts_per_step=512,
            group_size=16,
            max_new_tokens=20480,
            engine=ContinuousBatching(slots=96),
        ),
        optimizer=dataclasses.replace(base.optimizer, weight_decay=0.1),
        microbatches=256,
        alignment=AlignmentSpec(),
    )
