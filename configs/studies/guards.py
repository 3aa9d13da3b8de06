"""The benefit and the cost of guards: warm-ups of three lengths, each with and without them.

Command:

    python -m prerl_jax.study configs/studies/guards.py --jobs 2

Every run is the lab's with other phases: 10, 20 or 40 steps of NSR-PreRL at most, then 50 of RL.

Hardware: any CPU; a run takes some 20 seconds of one core.

Expected: docs/guards.md has the results. 40 steps without guards destroy the policy, and two of five seeds never
recover; the guards end these warm-ups after 14 to 24 steps, with the parameters of step 10, 15 or 20. With 10 steps
they change nothing.
"""

import dataclasses

from prerl_jax import WARMUP_GUARDS, AlignmentSpec, Arm, Figure, Study, TrainConfig, dsrl, load_config

RL = 50
WARMUPS = (10, 20, 40)


def with_phases(phases) -> TrainConfig:
    """The lab with other phases, without checkpoints but those that guards ask for."""
    lab = load_config("lab")
    return dataclasses.replace(
        lab,
        name="guards",
        phases=phases,
        checkpoints=dataclasses.replace(lab.checkpoints, every=0, best=None),
        alignment=AlignmentSpec(),
    )


def study() -> Study:
    arms = []
    for n in WARMUPS:
        arms.append(Arm(f"dsrl_{n}", with_phases(dsrl(warmup=n, total=n + RL))))
        guarded = dsrl(warmup=n, total=n + RL, guards=WARMUP_GUARDS)
        arms.append(Arm(f"dsrl_{n}_guarded", with_phases(guarded), f"dsrl_{n}"))
    names = tuple(arm.name for arm in arms)
    return Study(
        "guards", tuple(arms), tuple(range(5)), targets=(0.6, 0.7, 0.8, 0.85), figures=(Figure("guards", names),)
    )
