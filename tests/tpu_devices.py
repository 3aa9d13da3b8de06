"""The devices of a TPU slice that is not there, to compile for with the TPU's own compiler."""

import os

import pytest


def slice_of(topology, **options):
    """The devices of a topology such as "v5e:4x8"; skips the test where libtpu is missing."""
    pytest.importorskip("libtpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs on a TPU, so nothing need be locked
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except Exception as error:
        pytest.skip(f"no TPU topology: {error}")
