"""PSR-PreRL on Qwen3-4B and MATH: positive samples only, in P(y), for the whole run.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/psr_prerl_qwen3_4b_math.py --workdir /mnt/shared/psr_prerl_qwen3_4b_math

Everything except the phases, hardware included, is as in dsrl_qwen3_4b_math.py.

Expected: this is an ablation of the paper (arXiv 2604.14142); there is no published number to compare with.
"""

import dataclasses

from prerl_jax import TrainConfig, load_config, psr_prerl


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    return dataclasses.replace(base, name="psr_prerl_qwen3_4b_math", phases=psr_prerl(steps=348))
