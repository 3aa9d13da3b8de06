"""The paper's training claims in the lab: GRPO, PPO, the parts of DSRL, and DSRL with warm-ups of several lengths.

Command:

    python -m prerl_jax.study configs/studies/paper_lab.py --jobs 2

Every run is the lab's with other phases: 60 steps, evaluated every 5 on 192 held-out questions with 8 responses each.

Hardware: any CPU; a run takes some 20 seconds of one core.

Expected: docs/paper.md has the results, claim by claim.
"""

import dataclasses

from prerl_jax import (
    GAE,
    AlignmentSpec,
    Arm,
    CriticSpec,
    Figure,
    OptimizerSpec,
    Study,
    TrainConfig,
    dsrl,
    grpo,
    load_config,
    nsr_prerl,
    nsr_rl,
    ppo,
    prerl,
    psr_prerl,
    psr_rl,
    w_reinforce,
)

STEPS = 60
SEEDS = tuple(range(5))
WARMUPS = (5, 10, 20, 25)


def with_phases(phases) -> TrainConfig:
    """The lab with other phases, measured more closely and without checkpoints on the way.

    A critic, where a phase reads its values, learns ten times as fast as the policy, as in the published baselines.
    """
    lab = load_config("lab")
    valued = any(isinstance(phase.advantage, GAE) for phase in phases)
    return dataclasses.replace(
        lab,
        name="paper_lab",
        data=dataclasses.replace(lab.data, evaluation=dataclasses.replace(lab.data.evaluation, count=192)),
        phases=phases,
        evaluation=dataclasses.replace(lab.evaluation, every=5),
        checkpoints=dataclasses.replace(lab.checkpoints, every=0, best=None),
        alignment=AlignmentSpec(),
        critic=CriticSpec(OptimizerSpec(learning_rate=1e-3)) if valued else None,
    )


def study() -> Study:
    warmed = {f"dsrl_{n}": dsrl(warmup=n, total=STEPS) for n in WARMUPS}
    warmup, rl = warmed["dsrl_10"]
    (slow,) = nsr_prerl(steps=STEPS)
    alone = {
        "nsr_prerl_slow": (dataclasses.replace(slow, learning_rate=3e-5),),
        "nsr_prerl": nsr_prerl(steps=STEPS),
        "psr_prerl": psr_prerl(steps=STEPS),
        "prerl": prerl(steps=STEPS),
        "nsr_rl": nsr_rl(steps=STEPS),
        "psr_rl": psr_rl(steps=STEPS),
        "w_reinforce": w_reinforce(steps=STEPS),
    }
    arms = {"grpo": grpo(steps=STEPS), "ppo": ppo(steps=STEPS - 5, critic_warmup=5), **warmed}
    arms |= {"dsrl_10_reset": (warmup, dataclasses.replace(rl, reset_optimizer=True)), **alone}
    return Study(
        name="paper_lab",
        arms=tuple(Arm(name, with_phases(p), None if name == "grpo" else "grpo") for name, p in arms.items()),
        seeds=SEEDS,
        targets=(0.45, 0.6, 0.7, 0.8, 0.85),
        figures=(
            Figure("paper_dsrl", ("grpo", "ppo", *warmed, "dsrl_10_reset")),
            Figure("paper_parts", ("grpo", *alone)),
        ),
    )
