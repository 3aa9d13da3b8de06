"""A study as plain values: arms, each of which is a config, and the seeds that every arm runs with.

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
            f"{what} is named {name!r}. The name becomes a folder's: letters, digits, dots, dashes and underscores."
        )


@dataclasses.dataclass(frozen=True)
class Arm:
    """One config of a study.

    Attributes:
      name: the arm's name in tables and plots, and its folder: letters, digits, dots, dashes and underscores.
      config: the config that every seed runs. The study sets its `seed`.
      baseline: the name of the arm that this one is compared with, seed by seed; None for no comparison.

    Raises:
      ValueError: the name could not be a folder's, or the config is not valid.
    """

    name: str
    config: TrainConfig
    baseline: str | None = None

    def __post_init__(self) -> None:
        _require_name(self.name, "an arm")
        validate(self.config)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture of a study.

    Attributes:
      name: the name of its file, NAME.png.
      arms: the names of the arms that it shows.

    Raises:
      ValueError: the name could not be a file's.
    """

    name: str
    arms: tuple[str, ...]

    def __post_init__(self) -> None:
        _require_name(self.name, "a figure")


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of runs: every arm with every seed.

    Attributes:
      name: the title of the table, and the default folder's name.
      arms: the arms, in the order of the table.
      seeds: the values of `TrainConfig.seed`. Runs of two arms with one seed are a pair: they meet the same problems in
        the same order, and sample with the same keys.
      accuracy: the `eval/` metric by which arms are compared.
      targets: accuracies in (0, 1]. The table has the steps and the compute that an arm takes to reach each of them.
      figures: the pictures; () makes one of all arms.
      watched: more metrics, such as "alignment/objective". The table has their means over each phase.

    Raises:
      ValueError: there is no arm or no seed, something stands twice, a name is unknown, or an arm does not measure
        `accuracy`.
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
            raise ValueError(f"targets are {self.targets}; each must be above 0 and at most 1.")

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
        """The config of one run of the grid."""
        return dataclasses.replace(arm.config, seed=seed)

    @property
    def baselines(self) -> dict[str, str]:
        """{arm: the arm that it is compared with}, by name."""
        return {arm.name: arm.baseline for arm in self.arms if arm.baseline is not None}


def load_study(path: str | Path) -> Study:
    """Reads the study of a Python file, or of one that ships with the package, such as "studies/guards".

    Raises as `load_config` does.
    """
    return build(path, "study", Study)
