"""The devices of a slice that is not here, as the TPU's own compiler describes them.

libtpu has the compiler (`pip install 'prerl_jax[tpu]'`). It needs no TPU, and it starts no device.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from prerl_jax.runtime.chips import Chip, chip_named, chip_of_kind
from prerl_jax.runtime.peak import device_memory

ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing runs on a TPU here, so no lock is needed
}
"""Variables with which libtpu compiles on a machine without a TPU."""


class NoCompiler(ImportError):
    """libtpu is not installed."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """Devices to plan for.

    Attributes:
        name: what the user calls them, such as v5e:4x8.
        devices: the devices, for `make_mesh`.
        chip: the kind of chip; None where `runtime.chips` has no numbers for the devices.
    """

    name: str
    devices: tuple[Any, ...]
    chip: Chip | None

    @property
    def chips(self) -> int:
        """The number of chips; of devices, if the chip is not known."""
        return len(self.devices) // (self.chip.devices if self.chip else 1)

    @property
    def usable(self) -> float | None:
        """Bytes of a device that programs may use; None where they are not known."""
        return device_memory(self.devices[0]) if self.chip is None else self.chip.usable / self.chip.devices

    @property
    def per_chip(self) -> str:
        """Says how many devices a chip has."""
        if self.chip is None:
            return f"{len(self.devices)} {self.devices[0].device_kind} devices"
        each = {1: "one device each", 2: "two devices each"}[self.chip.devices]
        return f"{self.chips} {self.chip.name} chips, {each}"


def local_slice() -> Slice:
    """The devices of this machine."""
    devices = tuple(jax.devices())
    return Slice("this machine", devices, chip_of_kind(devices[0].device_kind))


def parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    """The chip and the shape of a topology's name.

    Raises ValueError for a chip that is not known and a shape that no slice has. It names the nearest that exists.
    """
    head, _, tail = name.partition(":")
    if not tail and (sold := re.fullmatch(r"([a-z0-9]+)-(\d+)", name)):
        return _refuse_sold(name, sold[1], int(sold[2]))
    chip = chip_named(head)
    if not re.fullmatch(r"\d+(x\d+)*", tail):
        raise ValueError(
            f"--topology {name}: write a chip and the shape of the slice in chips, such as "
            f"{_name(chip, nearest(chip, (32,)))}."
        )
    shape = tuple(map(int, tail.split("x")))
    if tuple(sorted(shape)) not in {tuple(sorted(s)) for s in chip.shapes}:
        wanted = f"{tail} = {math.prod(shape)} chips"
        raise ValueError(
            f"--topology {name}: there is no {chip.name} slice of {wanted}. "
            f"The nearest is {_name(chip, nearest(chip, shape))}."
        )
    return chip, next(s for s in chip.shapes if sorted(s) == sorted(shape))


def _refuse_sold(name: str, head: str, count: int) -> Any:
    """Refuses a name such as v5p-128, which is that of an accelerator type: it counts chips, or cores."""
    chip = chip_named(head)
    chips = count // 2 if chip.name in ("v2", "v3", "v4", "v5p") else count
    unit = "chips" if chips == count else "cores, two a chip"
    raise ValueError(
        f"--topology {name}: this is the name of an accelerator type, which counts {unit}. The topology of {chips} "
        f"chips is {_name(chip, nearest(chip, (max(chips, 1),)))}."
    )


def nearest(chip: Chip, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a slice that is nearest to this shape in its number of chips; the larger one of two."""
    wanted = math.prod(shape) or 1
    return min(chip.shapes, key=lambda s: (abs(math.log(math.prod(s) / wanted)), -math.prod(s), max(s)))


def _name(chip: Chip, shape: tuple[int, ...]) -> str:
    return f"{chip.name}:{'x'.join(map(str, shape))}"


def slice_named(name: str) -> Slice:
    """The devices of a topology, such as v5e:4x8 (32 chips). From here on JAX runs on CPUs, if it has not started yet.

    Args:
        name: a chip of `runtime.chips` and the slice's shape in chips.

    Raises:
        ValueError: there is no such chip or slice, or libtpu does not know it.
        NoCompiler: libtpu is not installed.
    """
    chip, shape = parse(name)
    if importlib.util.find_spec("libtpu") is None:
        raise NoCompiler(
            "libtpu, the TPU's compiler, is not installed: pip install 'prerl_jax[tpu]' (from a checkout: "
            "pip install -e '.[tpu]'). It needs no TPU."
        )
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    if jax.config.values["jax_platforms"] is None:
        jax.config.update("jax_platforms", "cpu")
    options: dict[str, Any] = dict(chip.options)
    if math.prod(shape) == 1:  # by default a host has four chips
        options["chips_per_host_bounds"] = (1, 1, 1)
    asked = {"platform": "tpu", "topology_name": _name(chip, shape)}
    try:
        devices = tuple(topologies.get_topology_desc(**asked, **options).devices)
    except Exception as error:  # libtpu raises no class of its own
        raise ValueError(
            f"--topology {name}: libtpu {_version('libtpu')} beside jax {jax.__version__} does not describe it: "
            f"{str(error).splitlines()[0]} If the two do not fit together, install them together: "
            "pip install -U 'jax[tpu]'."
        ) from error
    expected = math.prod(shape) * chip.devices
    if len(devices) != expected:
        raise ValueError(
            f"--topology {name}: libtpu {_version('libtpu')} lists {len(devices)} devices, not {expected} "
            f"({chip.devices} for each chip). Install the version that belongs to jax {jax.__version__}: "
            "pip install -U 'jax[tpu]'."
        )
    return Slice(_name(chip, shape), devices, chip)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(unknown)"
