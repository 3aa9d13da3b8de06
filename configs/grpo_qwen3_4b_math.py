"""GRPO on Qwen3-4B and MATH: the paper's baseline, clip 0.2 / 0.28.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/grpo_qwen3_4b_math.py --workdir /mnt/shared/grpo_qwen3_4b_math

Everything except the phases, hardware included, is as in dsrl_qwen3_4b_math.py.

Expected, as published (arXiv 2604.14142, Avg@32 over six math sets): base 41.26, GRPO 55.79. The paper has DSRL at 45 %
accuracy in 2.5 times fewer steps than this.
"""

import dataclasses

from prerl_jax import TrainConfig, grpo, load_config


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    return dataclasses.replace(base, name="grpo_qwen3_4b_math", phases=grpo(steps=348))
