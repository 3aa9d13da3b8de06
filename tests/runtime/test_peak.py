"""Peaks by kind of device, as JAX names them."""

import jax
import numpy as np
import pytest

from prerl_jax.runtime.peak import known_peak, peak_flops


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", None),
        ("cpu", None),
    ],
)
def test_known_kinds(kind, tera):
    assert known_peak(kind) == (tera and tera * 1e12)


def test_a_cpu_is_measured_and_its_fake_devices_share_its_cores():
    one, said = peak_flops(jax.devices()[:1], np.float32)
    assert 1e8 < one < 1e15
    assert "measured with" in said
    assert peak_flops(jax.devices(), np.float32)[0] == one
