"""DSRL on MathQA, five-way choice, with Qwen3-0.6B from the Hugging Face hub.

Command:

    python -m prerl_jax.launch --config configs/mathqa.py --workdir runs/mathqa

On the hub, MathQA is a script, and scripts are never run. Download the data set's own archive and unpack train.json and
test.json into data/mathqa, or name other files:

    --set 'data.train=mathqa("train.json")' 'data.evaluation=mathqa("test.json")'

Hardware: as configs/gsm8k.py.

Expected: there is no published number for this model and recipe. A guess is right once in five times. Some published
answers of MathQA are wrong.
"""

import dataclasses

from prerl_jax import MultipleChoice, TrainConfig, layouts, load_config


def config() -> TrainConfig:
    base = load_config("gsm8k")
    data = dataclasses.replace(
        base.data,
        train=layouts.mathqa("data/mathqa/train.json"),
        evaluation=layouts.mathqa("data/mathqa/test.json"),
        verifier=MultipleChoice("ABCDE"),
        max_prompt_tokens=512,
    )
    return dataclasses.replace(base, name="mathqa", data=data)
