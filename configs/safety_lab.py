"""Unwanted words in the lab: negative samples against a word list, and nothing else.

Command:

    python -m prerl_jax.launch --config configs/safety_lab.py --workdir runs/safety_lab

The word is "wait", which the lab's base model writes in one response of twelve. A response that holds it is a negative
sample; no other response is trained on, and no reward says whether an answer is right. The evaluation verifies answers,
to see what the training costs, and eval/reflections counts the word.

Hardware: any CPU; half a minute on two idle cores.

Expected, over three seeds: in 20 steps the word falls from 0.082 per response to between 0.039 and 0.046. Accuracy was
0.414, and is then between 0.410 and 0.428, with a standard error of 0.02. docs/safety.md has what does not work, and
what this does not do.
"""

import dataclasses

from prerl_jax import AlignmentSpec, Avoids, CheckpointSpec, EvaluationSpec, TrainConfig, load_config, nsr_rl


def config() -> TrainConfig:
    lab = load_config("lab")
    return dataclasses.replace(
        lab,
        name="safety_lab",
        data=dataclasses.replace(lab.data, verifier=Avoids(("wait",)), evaluation_verifier=lab.data.verifier),
        phases=nsr_rl(steps=20),
        optimizer=dataclasses.replace(lab.optimizer, learning_rate=3e-5),
        evaluation=EvaluationSpec(every=5, samples=8, reflection="wait"),
        checkpoints=CheckpointSpec(every=0, best=None),
        alignment=AlignmentSpec(),
    )
