"""Topologies by name, and what is said about those that do not exist. No compiler is asked."""

import importlib.util
import math
import re

import pytest

from prerl_jax.plan.topology import NoCompiler, nearest, parse, slice_named
from prerl_jax.runtime.chips import CHIPS, chip_named


@pytest.mark.parametrize(
    ("name", "chips", "devices"),
    [("v5e:4x8", 32, 1), ("v5e:8x4", 32, 1), ("v5e:1x1", 1, 1), ("v5p:4x4x4", 64, 1), ("tpu7x:2x2x1", 4, 2)],
)
def test_names(name, chips, devices):
    chip, shape = parse(name)
    assert (math.prod(shape), chip.devices) == (chips, devices)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e:3x3", ["no v5e slice of 3x3 = 9 chips", "The nearest is v5e:2x4"]),
        ("v5e:32x32", ["The nearest is v5e:16x16"]),
        ("v5p:64", ["The nearest is v5p:4x4x4"]),
        ("v5e", ["write a chip and the shape", "v5e:4x8"]),
        ("v5e:axb", ["write a chip and the shape"]),
        ("v5e-32", ["accelerator type, which counts chips", "32 chips is v5e:4x8"]),
        ("v5p-128", ["accelerator type, which counts cores", "64 chips is v5p:4x4x4"]),
        ("v9:2x2", ["no TPU chip 'v9'", "v4, v5e, v5p"]),
        ("7x:2x2x1", ["Is tpu7x meant?"]),
        ("", ["no TPU chip ''"]),
    ],
)
def test_what_does_not_exist(name, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as error:
        parse(name)
    assert words[-1] in str(error.value)


def test_every_shape_of_every_chip_is_its_own_nearest():
    for chip in CHIPS:
        for shape in chip.shapes[:20]:
            assert math.prod(nearest(chip, shape)) == math.prod(shape) <= chip.most


def test_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NoCompiler, match=r"pip install 'prerl_jax\[tpu\]'"):
        slice_named("v5e:4x8")


def test_a_compiler_of_another_version(monkeypatch):
    from jax.experimental import topologies

    def refuse(**_):
        raise RuntimeError("INVALID_ARGUMENT: no such thing\nmore")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(ValueError, match=r"libtpu .* beside jax .*no such thing.*pip install -U 'jax\[tpu\]'"):
        slice_named("v5e:4x8")


def test_a_device_has_its_part_of_the_chip():
    from prerl_jax.plan.report import Rates

    half = Rates.of(chip_named("v2"))
    assert half.flops == 22.5e12
    assert Rates.of(chip_named("v4")).flops == 275e12
