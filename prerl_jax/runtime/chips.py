"""TPU chips: their memory, their bandwidths and their peak FLOP/s. One table, for the MFU of a run and for its plan.

Sources. Peaks, memory and its bandwidth: the pages v3, v4, v5e, v5p and tpu7x of docs.cloud.google.com/tpu/docs; the
last one has v6e, too. Links: the same pages for v5e, v5p, v6e and tpu7x, whose "bidirectional" number is halved here;
for v4, six links of 400 Gbit/s (Zu et al., Resiliency at Scale, NSDI 2024). v2, and the links of v3: Jouppi et al., A
Domain-Specific Supercomputer for Training Deep Neural Networks, CACM 2020; the peak of v2 is the 180 TFLOP/s that
Google Cloud gives for four chips. Host: Austin et al., How to Scale Your Model, 2025, chapter 2: 15 GB/s a chip is
typical and v6e has 32; no number was found for v2 and 7x, which have the typical one here. `usable` is what libtpu
0.0.42 names as available when a program is too large.

JAX lists a chip of v4, v5e, v5p and v6e as one device. It lists a chip of v2, v3 and 7x as two devices, each with half
of the chip. A name of a topology is a chip's name and its shape in chips, such as v5e:4x8.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

GIGA, TERA, GIB = 1e9, 1e12, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU chip. A device has 1 / `devices` of every number.

    Attributes:
        name: as in the name of a topology.
        kinds: `jax.Device.device_kind` of its devices, as libraries of different ages name them.
        hbm: bytes of memory.
        usable: bytes of memory that programs may use; the rest is the runtime's.
        bandwidth: bytes a second through the memory.
        flops: peak FLOP/s of dense bfloat16 products.
        links: bytes a second that it sends to its neighbours, over all its links in one direction.
        host: bytes a second between it and its host's memory, over PCIe.
        devices: JAX devices of a chip.
        most: chips of the largest slice.
        options: what `jax.experimental.topologies` needs to list a chip as so many devices, by name.
    """

    name: str
    kinds: tuple[str, ...]
    hbm: float
    usable: float
    bandwidth: float
    flops: float
    links: float
    host: float
    devices: int
    most: int
    options: tuple[tuple[str, str], ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of its slices, in chips, the smallest first."""
        flat = self.name in ("v2", "v3", "v5e", "v6e")
        found = _flat_shapes(self.most) if flat else _solid_shapes(self.most)
        single = ((1, 1),) if self.name in ("v5e", "v6e") else ()
        return (*single, *found)


CHIPS = (
    Chip("v2", ("TPU v2",), 16 * GIB, 14.96 * GIB, 700 * GIGA, 45 * TERA, 248 * GIGA, 15 * GIGA, 2, 256),
    Chip("v3", ("TPU v3",), 32 * GIB, 30.96 * GIB, 900 * GIGA, 123 * TERA, 328 * GIGA, 15 * GIGA, 2, 1024),
    Chip(
        "v4", ("TPU v4",), 32 * GIB, 30.75 * GIB, 1200 * GIGA, 275 * TERA, 300 * GIGA, 15 * GIGA, 1, 4096,
        (("chip_config_name", "megacore"),),
    ),
    Chip(
        "v5e", ("TPU v5 lite", "TPU v5e"), 16 * GIB, 15.75 * GIB, 819 * GIGA, 197 * TERA, 200 * GIGA, 15 * GIGA, 1, 256,
    ),
    Chip(
        "v5p", ("TPU v5", "TPU v5p"), 96 * GIB, 95.74 * GIB, 2765 * GIGA, 459 * TERA, 600 * GIGA, 15 * GIGA, 1, 6144,
    ),
    Chip(
        "v6e", ("TPU v6 lite", "TPU v6e"), 32 * GIB, 31.25 * GIB, 1638 * GIGA, 918 * TERA, 400 * GIGA, 32 * GIGA,
        1, 256,
    ),
    Chip("tpu7x", ("TPU7x",), 192 * GIB, 189.5 * GIB, 7380 * GIGA, 2307 * TERA, 600 * GIGA, 15 * GIGA, 2, 9216),
)  # fmt: skip


def chip_named(name: str) -> Chip:
    """The chip of a name such as "v5e". Raises ValueError that lists the chips and names the one that may be meant."""
    for chip in CHIPS:
        if chip.name == name:
            return chip
    meant = {"v5": "v5p", "v5lite": "v5e", "v5litepod": "v5e", "v6": "v6e", "trillium": "v6e"}
    meant |= dict.fromkeys(("v7", "v7x", "7x", "tpu7", "ironwood"), "tpu7x")
    hint = f" Is {meant[name.lower()]} meant?" if name.lower() in meant else ""
    raise ValueError(f"there is no TPU chip {name!r}; those known are {', '.join(c.name for c in CHIPS)}.{hint}")


def chip_of_kind(kind: str) -> Chip | None:
    """The chip of a `jax.Device.device_kind`; None for another kind of device."""
    return next((chip for chip in CHIPS if kind in chip.kinds), None)


@functools.cache
def _flat_shapes(most: int) -> tuple[tuple[int, int], ...]:
    """2x2, 2x4, 4x4, 4x8, 8x8, ..., up to `most` chips."""
    sides = [2**n for n in range(1, 7)]
    return tuple((a, b) for a in sides for b in (a, 2 * a) if a * b <= most)


@functools.cache
def _solid_shapes(most: int) -> tuple[tuple[int, int, int], ...]:
    """2x2x1, 2x2x2, 2x2x4, 2x4x4, then all whose sides are multiples of 4, up to `most` chips."""
    small = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
    sides = range(4, most // 16 + 1, 4)
    large = (s for s in itertools.combinations_with_replacement(sides, 3) if math.prod(s) <= most)
    return (*small, *sorted(large, key=lambda s: (math.prod(s), s)))
