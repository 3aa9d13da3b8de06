"""DSRL on Qwen3-4B and MATH, evaluated on what it is not trained on: GPQA and MMLU-Pro, multiple choice.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/other_sets_qwen3_4b_math.py --workdir /mnt/shared/other_sets

GPQA and MMLU-Pro come from the Hugging Face hub. GPQA asks you to accept its terms, and for HF_TOKEN. The rest is as in
dsrl_qwen3_4b_math.py. `--set 'data.evaluation=...'` names files of your own.

Hardware: as dsrl_qwen3_4b_math.py. The first 500 problems of each source are evaluated; the sources of MMLU-Pro are its
14 categories.

Expected: there is no number of this evaluation to compare with.
"""

import dataclasses

from prerl_jax import EvaluationSpec, HubProblems, Mixture, MultipleChoice, TrainConfig, load_config


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    sets = (HubProblems("Idavidrein/gpqa", "gpqa_diamond"), HubProblems("TIGER-Lab/MMLU-Pro", split="test"))
    return dataclasses.replace(
        base,
        name="other_sets_qwen3_4b_math",
        data=dataclasses.replace(
            base.data, evaluation=Mixture(tuple((one, 1) for one in sets)), evaluation_verifier=MultipleChoice()
        ),
        evaluation=EvaluationSpec(every=0, samples=4, limit=500),
        checkpoints=dataclasses.replace(base.checkpoints, best="eval/avg@4"),
    )
