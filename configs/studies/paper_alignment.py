"""How well the gradients of P(y) and P(y|x) agree in the lab, through GRPO and through DSRL.

Command:

    python -m prerl_jax.study configs/studies/paper_alignment.py --jobs 2

The lab's runs, every 5 steps measured on the whole batch: the gradients of the objective and of the mean
log-probability, all parameters, and the last layer's token by token.

Hardware: any CPU; a run takes some 40 seconds of one core.

Expected: docs/paper.md has the results.
"""

import dataclasses

from prerl_jax import Arm, Study, dsrl, grpo, load_config

WATCHED = (
    "alignment/objective",
    "alignment/logprob",
    "alignment/token",
    "alignment/token_weighted",
    "alignment/token/pre_0-0.1",
    "alignment/token/pre_0.25-0.5",
    "alignment/token/pre_0.999-1",
    "alignment/token/post_0-0.1",
    "alignment/token/post_0.999-1",
    "alignment/token/position_0",
    "alignment/marginal_gap",
    "alignment/pre/entropy",
    "alignment/post/entropy",
)


def study() -> Study:
    lab = load_config("lab")
    lab = dataclasses.replace(lab, checkpoints=dataclasses.replace(lab.checkpoints, every=0, best=None))
    arms = {"grpo": grpo(steps=60), "dsrl_10": dsrl(warmup=10, total=60)}
    return Study(
        name="paper_alignment",
        arms=tuple(Arm(name, dataclasses.replace(lab, phases=phases)) for name, phases in arms.items()),
        seeds=tuple(range(5)),
        watched=WATCHED,
    )
