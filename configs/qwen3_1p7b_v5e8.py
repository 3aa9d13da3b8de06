"""DSRL on Qwen3-1.7B and MATH on a TPU v5e-8. Model and problems come from the Hugging Face hub.

Command:

    python -m prerl_jax.launch --config configs/qwen3_1p7b_v5e8.py --workdir runs/qwen3_1p7b_v5e8

Trained on MATH, from the seven subsets of EleutherAI/hendrycks_math, and evaluated on MATH-500.
Without a network, with files of your own:

    --set model.path=FOLDER 'data.train=hendrycks_math("FILES")' 'data.evaluation=math500("math500.jsonl")'

Hardware: written for a v5e-8 (8 chips of 16 GB), compiled for it, not run on one. Of the 15.75 GiB of a chip,
parameters and moments take 2.4. While sampling, four chips share a copy of the weights (0.8 GiB a chip), and each copy
decodes 64 of the 128 responses. At least 29 % of the memory is free in every program:

    python -m prerl_jax.plan --config qwen3_1p7b_v5e8 --topology v5e:2x4

Expected: there is no published number for this model and recipe.
"""

from prerl_jax import (
    AlignmentSpec,
    BoxedAnswer,
    ChatTemplate,
    CheckpointSpec,
    ContinuousBatching,
    DataSpec,
    EvaluationSpec,
    HubProblems,
    MeshSpec,
    ModelSpec,
    OptimizerSpec,
    SamplingSpec,
    TrainConfig,
    dsrl,
)


def config() -> TrainConfig:
    return TrainConfig(
        name="qwen3_1p7b_v5e8",
        model=ModelSpec(path="Qwen/Qwen3-1.7B", compute_dtype="bfloat16", remat="full"),
        data=DataSpec(
            train=HubProblems("EleutherAI/hendrycks_math", files="*/train-*.parquet"),
            evaluation=HubProblems("HuggingFaceH4/MATH-500", split="test"),
            template=ChatTemplate(arguments=(("enable_thinking", False),)),
            verifier=BoxedAnswer(),
            max_prompt_tokens=1024,
            too_long="truncate_left",
        ),
        phases=dsrl(warmup=20, total=348),
        sampling=SamplingSpec(
            prompts_per_step=64, group_size=8, max_new_tokens=2048, engine=ContinuousBatching(slots=128)
        ),
        optimizer=OptimizerSpec(learning_rate=1e-6),
        evaluation=EvaluationSpec(every=50, samples=1),
        checkpoints=CheckpointSpec(every=50, keep_last=2, best="eval/avg@1"),
        mesh=MeshSpec(data=1, fsdp=8, tensor=1),
        microbatches=64,
        alignment=AlignmentSpec(every=20, prompts=8),
    )
