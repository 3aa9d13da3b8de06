"""Eight fake CPU devices for every test, set before JAX starts, and programs that compile fast rather than run fast."""

import os

FLAGS = {"xla_force_host_platform_device_count": 8, "xla_backend_optimization_level": 0}

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
for flag, value in FLAGS.items():
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{flag}={value}"
