"""DSRL on Qwen3-4B and MATH: 20 steps of NSR-PreRL, then GRPO, with the published hyper-parameters.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/dsrl_qwen3_4b_math.py --workdir /mnt/shared/dsrl_qwen3_4b_math

What it needs, relative to the working directory, or wherever the overrides say:

    Qwen/Qwen3-4B                          hf download Qwen/Qwen3-4B --local-dir Qwen/Qwen3-4B
                                           --set model.path=FOLDER
    data/math_train.parquet                the 7,500 problems of MATH's training set in verl's schema, as the paper's
                                           published code ships them: --set data.train.path=FILE
    data/aime_2024_20times.parquet,        of the same code; each problem once, since evaluation samples by itself:
    data/aime_2025_20times.parquet,        --set 'data.evaluation.path=("FILE", "FILE")', or =FILE for one alone
    data/amc2023_20times.parquet

Hardware: written for a TPU v5e-32 (32 chips of 16 GB), not run on one. Parameters, gradient and two moments in float32
are 4 x 16 GB, 2 GB per chip; the cache of 128 responses of 8,192 tokens (147 kB per token) is 155 GB, 4.8 GB per chip;
each microbatch is one row per chip. Every 10 steps alignment takes two more gradients, 1 GB per chip, in the same
microbatches. `python -m prerl_jax.plan` says what your slice would hold; on another, change mesh, microbatches,
sampling.engine.slots and alignment.prompts.

Expected, as published (arXiv 2604.14142, Avg@32 over six math sets): base 41.26, GRPO 55.79, DSRL 57.54. The evaluation
here is avg@20 on the three that the published code watches, of all and of each, and is not that number.

6 epochs of 58 steps are 348 steps. The published code's warm-up of "20" makes 19 updates; this makes 20.
"""

from prerl_jax import (
    AlignmentSpec,
    BoxedAnswer,
    ChatTemplate,
    CheckpointSpec,
    ContinuousBatching,
    DataSpec,
    EvaluationSpec,
    MeshSpec,
    ModelSpec,
    OptimizerSpec,
    ParquetProblems,
    SamplingSpec,
    TrainConfig,
    dsrl,
)


def config() -> TrainConfig:
    return TrainConfig(
        name="dsrl_qwen3_4b_math",
        model=ModelSpec(path="Qwen/Qwen3-4B", compute_dtype="bfloat16", remat="full"),
        data=DataSpec(
            train=ParquetProblems("data/math_train.parquet"),
            evaluation=ParquetProblems(
                ("data/aime_2024_20times.parquet", "data/aime_2025_20times.parquet", "data/amc2023_20times.parquet"),
                deduplicate=True,
            ),
            template=ChatTemplate(arguments=(("enable_thinking", False),)),
            verifier=BoxedAnswer(),
            max_prompt_tokens=1024,
            too_long="truncate_left",
        ),
        phases=dsrl(warmup=20, total=348),
        sampling=SamplingSpec(
            prompts_per_step=128, group_size=8, max_new_tokens=8192, engine=ContinuousBatching(slots=128)
        ),
        optimizer=OptimizerSpec(learning_rate=1e-6, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01, max_grad_norm=1.0),
        evaluation=EvaluationSpec(every=25, samples=20, temperature=1.0),
        checkpoints=CheckpointSpec(every=25, keep_last=2, best="eval/avg@20"),
        mesh=MeshSpec(data=1, fsdp=32, tensor=1),
        microbatches=32,
        alignment=AlignmentSpec(every=10, prompts=32),
    )
