"""Unwanted words in the lab: NSR-PreRL on the responses that hold one, and on nothing else.

Command:

    python -m prerl_jax.launch --config configs/safety_lab.py --workdir runs/safety_lab

EXP

Hardware: any CPU; half a minute on two idle cores.

Expected: TODO
"""

import dataclasses

from prerl_jax import (
    AlignmentSpec,
    Avoids,
    ClippedPG,
    EvaluationSpec,
    InitialModel,
    TrainConfig,
    WithKL,
    load_config,
    nsr_prerl,
)


def config() -> TrainConfig:
    lab = load_config("lab")
    (phase,) = nsr_prerl(steps=60)
    phase = dataclasses.replace(phase, objective=WithKL(ClippedPG(), 1.0), reference=InitialModel())
    return dataclasses.replace(
        lab,
        name="safety_lab",
        data=dataclasses.replace(lab.data, verifier=Avoids(("wait",)), evaluation_verifier=lab.data.verifier),
        phases=(phase,),
        sampling=dataclasses.replace(lab.sampling, prompts_per_step=96),
        evaluation=EvaluationSpec(every=20, samples=8, reflection="wait"),
        checkpoints=dataclasses.replace(lab.checkpoints, every=0, best=None),
        alignment=AlignmentSpec(),
    )
