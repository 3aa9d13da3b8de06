"""PPO with a critic in the lab: the baseline beside configs/lab.py's DSRL, with the same model, problems and rollouts.

Command:

    python -m prerl_jax.launch --config configs/ppo_lab.py --workdir runs/ppo_lab

Hardware: any CPU; a minute on two idle cores.

Expected: accuracy (eval/avg@8) from 0.41 to 0.86 or more after 5 steps that train the critic alone and 55 of PPO, level
with GRPO's. The critic learns the mean return and no more: the lab's rewards cannot be predicted from the base
model's states. docs/algorithms.md has the figures.
"""

import dataclasses

from prerl_jax import AlignmentSpec, CriticSpec, OptimizerSpec, TrainConfig, load_config, ppo


def config() -> TrainConfig:
    lab = load_config("lab")
    return dataclasses.replace(
        lab,
        name="ppo_lab",
        phases=ppo(steps=55, critic_warmup=5, gamma=1.0, lam=1.0),
        critic=CriticSpec(OptimizerSpec(learning_rate=1e-3)),
        alignment=AlignmentSpec(),
    )
