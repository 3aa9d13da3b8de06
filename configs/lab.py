"""The lab, the default: DSRL on a tiny model that adds numbers digit by digit, with wrong steps it can learn to avoid.

Command (this config is what runs without --config):

    python -m prerl_jax.launch --workdir runs/lab

The base model ships with the package (`python -m prerl_jax.lab` makes it): pre-trained on worked additions with a share
of wrong steps, some of them followed by "wait" and the right step.

Hardware: any CPU; half a minute on two idle cores, more where other work shares them.

Expected: the run ends with a table. Accuracy (eval/avg@8) over five seeds: 0.41 for the base, 0.53 to 0.56 after 10
steps of NSR-PreRL, 0.86 to 0.88 after 50 of RL; docs/lab.md has the experiments behind these numbers.
"""

from prerl_jax import (
    Additions,
    AlignmentSpec,
    CheckpointSpec,
    DataSpec,
    EvaluationSpec,
    ExactMatch,
    ModelSpec,
    OptimizerSpec,
    PlainText,
    SamplingSpec,
    TrainConfig,
    dsrl,
)


def config() -> TrainConfig:
    return TrainConfig(
        name="lab",
        model=ModelSpec(path="package:prerl_jax/lab_base", compute_dtype="float32", remat="none"),
        data=DataSpec(
            train=Additions(digits=2, count=4096, seed=0, split="train"),
            evaluation=Additions(digits=2, count=96, seed=0, split="evaluation"),
            template=PlainText(),
            verifier=ExactMatch(marker="#"),
            max_prompt_tokens=8,
        ),
        phases=dsrl(warmup=10, total=60),
        sampling=SamplingSpec(prompts_per_step=24, group_size=8, max_new_tokens=64),
        optimizer=OptimizerSpec(learning_rate=1e-4),
        evaluation=EvaluationSpec(every=10, samples=8, reflection="wait"),
        checkpoints=CheckpointSpec(every=10, best="eval/avg@8"),
        alignment=AlignmentSpec(every=5, prompts=24, mean_logprob=True),
    )
