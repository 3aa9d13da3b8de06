"""DSRL on GSM8K with Qwen3-0.6B on a single TPU v5e chip. Model and problems come from the Hugging Face hub.

Command:

    python -m prerl_jax.launch --config configs/qwen3_0p6b_v5e1.py --workdir runs/qwen3_0p6b_v5e1

Hardware: written for a v5e-1 (one chip of 16 GB), compiled for it, not run on one. At least 18 % of the memory is free
in every program:

    python -m prerl_jax.plan --config qwen3_0p6b_v5e1 --topology v5e:1x1

Expected: there is no published number for this model and recipe.
"""

from prerl_jax import (
    AlignmentSpec,
    ChatTemplate,
    CheckpointSpec,
    ContinuousBatching,
    DataSpec,
    EvaluationSpec,
    GSM8KAnswer,
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
        name="qwen3_0p6b_v5e1",
        model=ModelSpec(path="Qwen/Qwen3-0.6B", compute_dtype="bfloat16", remat="full"),
        data=DataSpec(
            train=HubProblems("openai/gsm8k", "main", split="train"),
            evaluation=HubProblems("openai/gsm8k", "main", split="test"),
            template=ChatTemplate(arguments=(("enable_thinking", False),)),
            verifier=GSM8KAnswer(),
            max_prompt_tokens=320,
        ),
        phases=dsrl(warmup=20, total=400),
        sampling=SamplingSpec(
            prompts_per_step=8, group_size=8, max_new_tokens=1024, engine=ContinuousBatching(slots=32)
        ),
        optimizer=OptimizerSpec(learning_rate=1e-6, moments="bfloat16"),
        evaluation=EvaluationSpec(every=50, samples=1, limit=256),
        checkpoints=CheckpointSpec(every=50, keep_last=1, best="eval/avg@1"),
        mesh=MeshSpec(data=1, fsdp=1, tensor=1),
        microbatches=64,
        alignment=AlignmentSpec(every=20, prompts=8),
    )
