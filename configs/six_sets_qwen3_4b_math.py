"""DSRL on Qwen3-4B and MATH, evaluated on the paper's six sets of mathematics, with 32 responses to each problem.

Command, on every worker of the slice (launch/tpu_vm.sh does that):

    python -m prerl_jax.launch --config configs/six_sets_qwen3_4b_math.py --workdir /mnt/shared/six_sets

What it needs in data/, besides the files of dsrl_qwen3_4b_math.py: math500.jsonl, aime24.jsonl, amc23.jsonl,
minerva_math.jsonl and olympiadbench.jsonl, as published. `--set 'data.evaluation=...'` names others.

The verifiers are those of the published numbers, string comparison of the last box, except for AIME and AMC: there two
whole numbers are compared, so 004 is 4. For a tolerant comparison of all six, install the extra `math` and add
`--set 'data.evaluation_verifier=MathAnswer()' data.verify_workers=4`.

Hardware: as dsrl_qwen3_4b_math.py. An evaluation is 1,547 problems x 32 responses, as much as 48 steps; it takes place
before the first step and at the end of each phase.

Expected, as published (arXiv 2604.14142, Avg@32 over these six sets): base 41.26, GRPO 55.79, DSRL 57.54. eval/avg@32
is the mean over all problems; the published number is the mean of the six sets: take that of eval/SOURCE/avg@32.
"""

import dataclasses

from prerl_jax import (
    BoxedAnswer,
    BySource,
    EvaluationSpec,
    IntegerAnswer,
    Mixture,
    ParquetProblems,
    TrainConfig,
    layouts,
    load_config,
)


def config() -> TrainConfig:
    base = load_config("dsrl_qwen3_4b_math")
    sets = (
        layouts.math500("data/math500.jsonl"),
        layouts.aime("data/aime24.jsonl", source="aime24"),
        ParquetProblems("data/aime_2025_20times.parquet", deduplicate=True),
        layouts.amc("data/amc23.jsonl"),
        layouts.minerva("data/minerva_math.jsonl"),
        layouts.olympiadbench("data/olympiadbench.jsonl"),
    )
    whole = {source: IntegerAnswer() for source in ("aime24", "qwen_aime_2025", "amc")}
    return dataclasses.replace(
        base,
        name="six_sets_qwen3_4b_math",
        data=dataclasses.replace(
            base.data,
            evaluation=Mixture(tuple((one, 1) for one in sets)),
            evaluation_verifier=BySource(whole, default=BoxedAnswer()),
        ),
        evaluation=EvaluationSpec(every=0, samples=32, temperature=1.0),
        checkpoints=dataclasses.replace(base.checkpoints, best="eval/avg@32"),
    )
