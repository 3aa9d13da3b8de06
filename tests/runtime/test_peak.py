"""Peaks by kind of device, as JAX names them."""

import types

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


def test_an_accelerator_that_is_not_known_has_no_peak():
    device = types.SimpleNamespace(device_kind="NVIDIA L40", platform="gpu", process_index=0)
    peak, said = peak_flops([device], np.float32)
    assert peak is None
    assert "no time/mfu: the peak of 'NVIDIA L40' is not in" in said
    known, said = peak_flops([types.SimpleNamespace(device_kind="TPU v5 lite", platform="tpu")] * 4, np.float32)
    assert known == 4 * 197e12
    assert "197 TFLOP/s a device" in said
