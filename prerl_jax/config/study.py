"""What a study is, as plain values: arms, each a config, run with several seeds.

A study file is a Python file with `def study() -> Study`. `python -m prerl_jax.study` runs it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

from prerl_jax.config.checks import validate
from prerl_jax.config.io import build
from prerl_jax.config.schema import TrainConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _require_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} is named {name!r}; its name becomes a folder's: letters, digits, dots, dashes and underscores."
        )


@dataclasses.dataclass(frozen=True)
class Arm:
    """One thing that is tried.

    Attributes:
      name: stands in tables and plots, and is a folder's name.
      config: what every seed runs; its own `seed` is replaced.
      baseline: the name of the arm that this one is compared with, seed by seed; None for none.
    """

    name: str
    config: TrainConfig
    baseline: str | None = None

    def __post_init__(self) -> None:
        _require_name(self.name, "an arm")
        validate(self.config)


@dataclasses.dataclass(frozen=True)
class Figure:
    """The arms that one picture shows."""

    name: str
    arms: tuple[str, ...]

    def __post_init__(self) -> None:
        _require_name(self.name, "a figure")


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of runs: every arm with every seed.

    Attributes:
      name: stands above the table; the default folder's name.
      arms: in the order of the table.
      seeds: of data order and of training samples. Runs of one seed are pairs: they see the same problems in the same
        order, drawn from with the same keys.
      accuracy: the metric that arms are compared by.
      targets: accuracies; how many steps and how much compute an arm takes to reach each of them is in the table.
      figures: pictures; () is a single one, of all arms.
      watched: further metrics, such as "alignment/objective", whose means over each phase are in the table.
    """

    name: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    accuracy: str = "eval/avg@8"
    targets: tuple[float, ...] = ()
    figures: tuple[Figure, ...] = ()
    watched: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_name(self.name, "the study")
        names = [arm.name for arm in self.arms]
        if not self.arms or not self.seeds:
            raise ValueError(f"a study has at least one arm and one seed; this has {names} and {self.seeds}.")
        for what, values in (("arms", names), ("seeds", self.seeds), ("figures", [f.name for f in self.figures])):
            twice = sorted({value for value in values if list(values).count(value) > 1})
            if twice:
                raise ValueError(f"{twice} stand twice among the {what} of study {self.name!r}; leave one out.")
        for arm in self.arms:
            self._check_arm(arm, names)
        for figure in self.figures:
            if not figure.arms or set(figure.arms) - set(names):
                raise ValueError(f"figure {figure.name!r} shows {figure.arms}; the arms are {names}.")
        if not all(0 < target <= 1 and math.isfinite(target) for target in self.targets):
            raise ValueError(f"targets are {self.targets}; accuracies are above 0 and at most 1.")

    def _check_arm(self, arm: Arm, names: list[str]) -> None:
        if arm.baseline is not None and (arm.baseline not in names or arm.baseline == arm.name):
            others = [name for name in names if name != arm.name]
            raise ValueError(f"the baseline of arm {arm.name!r} is {arm.baseline!r}; it must be one of {others}.")
        measured = arm.config.evaluation.metrics
        if self.accuracy not in measured:
            raise ValueError(
                f"the study compares by {self.accuracy!r}, which arm {arm.name!r} with its evaluation.samples = "
                f"{arm.config.evaluation.samples} does not measure; that measures {', '.join(measured)}."
            )

    def config(self, arm: Arm, seed: int) -> TrainConfig:
        """What one run of the grid runs."""
        return dataclasses.replace(arm.config, seed=seed)

    @property
    def baselines(self) -> dict[str, str]:
        """{arm: the arm that it is compared with}."""
        return {arm.name: arm.baseline for arm in self.arms if arm.baseline is not None}


def load_study(path: str | Path) -> Study:
    """The study of a Python file, or of one that comes with the package, as `configs/studies/NAME.py`.

    Raises as `load_config` does.
    """
    return build(path, "study", Study)
