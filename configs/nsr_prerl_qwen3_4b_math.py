"""NSR-PreRL on Qwen3-4B and MATH: negative samples only, in P(y), for the whole run.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/nsr_prerl_qwen3_4b_math.py --workdir /mnt/shared/nsr_prerl_qwen3_4b_math

Everything except the phases, hardware included, is as in dsrl_qwen3_4b_math.py.

Expected: this is an ablation, not a way to train. In the paper (arXiv 2604.14142) NSR-PreRL multiplies transition
thoughts by 14.89 and reflection thoughts by 6.54; as a warm-up, 10 to 25 steps of it are recommended.
"""

import dataclasses

from prerl_jax import TrainConfig, load_config, nsr_prerl


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    return dataclasses.replace(base, name="nsr_prerl_qwen3_4b_math", phases=nsr_prerl(steps=348))
