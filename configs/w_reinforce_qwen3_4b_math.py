"""W-REINFORCE on Qwen3-4B and MATH: RLVR-Decomposed, with its published hyper-parameters.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/w_reinforce_qwen3_4b_math.py --workdir /mnt/shared/w_reinforce

Model and data as in dsrl_qwen3_4b_math.py. The rest is as in the published run: 1,024 x 8 responses of up to 31,744
tokens per step, wrong ones at advantage -1 and right ones at 0.1, no baseline, PPO clip 0.2, entropy bonus 0.001, four
minibatches of 256 questions, AdamW at 1e-6, 20 epochs of 7 steps. For NSR add
`--set 'phases.0.advantage=BinaryAdvantage(keep="negative")'`, for PSR the same with "positive".

Hardware: written for 32 chips of 95 GB (TPU v5p-64), not run on any. The cache of 64 responses of 32,768 tokens
(147 kB per token) is 309 GB, 9.7 GB per chip; a microbatch is one row per chip. `python -m prerl_jax.plan` plans it
for your slice.

Expected: arXiv 2506.01347 publishes curves of pass@k for k up to 256; at every k they are above those of PPO and GRPO.
"""

import dataclasses

from prerl_jax import AlignmentSpec, ClippedPG, ContinuousBatching, TrainConfig, WithEntropy, load_config, w_reinforce


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    (phase,) = w_reinforce(steps=140, positive=0.1)
    phase = dataclasses.replace(phase, objective=WithEntropy(ClippedPG(dual_clip=None), 0.001), minibatches=4)
    return dataclasses.replace(
        base,
        name="w_reinforce_qwen3_4b_math",
        data=dataclasses.replace(base.data, too_long="drop"),
        phases=(phase,),
        sampling=dataclasses.replace(
            base.sampling, prompts_per_step=1024, max_new_tokens=31744, engine=ContinuousBatching(slots=64)
        ),
        evaluation=dataclasses.replace(base.evaluation, every=7),
        checkpoints=dataclasses.replace(base.checkpoints, every=7),
        microbatches=256,
        alignment=AlignmentSpec(),
    )
