"""NSR-RL on Qwen3-4B and MATH: negative samples only, in P(y|x), for the whole run.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/nsr_rl_qwen3_4b_math.py --workdir /mnt/shared/nsr_rl_qwen3_4b_math

Everything except the phases, hardware included, is as in dsrl_qwen3_4b_math.py.

Expected: this is an ablation of the paper (arXiv 2604.14142); there is no published number to compare with.
"""

import dataclasses

from prerl_jax import TrainConfig, load_config, nsr_rl


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    return dataclasses.replace(base, name="nsr_rl_qwen3_4b_math", phases=nsr_rl(steps=348))
