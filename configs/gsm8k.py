"""DSRL on GSM8K with Qwen3-0.6B. Model and problems come from the Hugging Face hub.

Command:

    python -m prerl_jax.launch --config configs/gsm8k.py --workdir runs/gsm8k

Without a network, with files of your own, or with another model:

    --set model.path=FOLDER 'data.train=gsm8k("gsm8k_train.jsonl")' 'data.evaluation=gsm8k("gsm8k_test.jsonl")'

SmolLM2-135M-Instruct solves none of these problems. A run with it warns that no response is right; docs/procedural.md
has the log.

Hardware: written for one accelerator with 80 GB, not run on one. Parameters, gradient and two moments in float32 are
4 x 2.4 GB; the cache of 128 responses of 1,024 tokens (115 kB per token) is 15 GB; a microbatch is 8 rows.

Expected: there is no published number for this model and recipe.
"""

from prerl_jax import (
    ChatTemplate,
    CheckpointSpec,
    ContinuousBatching,
    DataSpec,
    EvaluationSpec,
    GSM8KAnswer,
    HubProblems,
    ModelSpec,
    OptimizerSpec,
    SamplingSpec,
    TrainConfig,
    dsrl,
)


def config() -> TrainConfig:
    return TrainConfig(
        name="gsm8k",
        model=ModelSpec(path="Qwen/Qwen3-0.6B"),
        data=DataSpec(
            train=HubProblems("openai/gsm8k", "main", split="train"),
            evaluation=HubProblems("openai/gsm8k", "main", split="test"),
            template=ChatTemplate(),
            verifier=GSM8KAnswer(),
            max_prompt_tokens=320,
        ),
        phases=dsrl(warmup=20, total=200),
        sampling=SamplingSpec(
            prompts_per_step=64, group_size=8, max_new_tokens=1024, engine=ContinuousBatching(slots=128)
        ),
        optimizer=OptimizerSpec(learning_rate=1e-6),
        evaluation=EvaluationSpec(every=25, samples=4, limit=256),
        checkpoints=CheckpointSpec(every=25, best="eval/avg@4"),
        microbatches=64,
    )
