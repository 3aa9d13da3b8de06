"""Packaging. Lower bounds are the versions that the tests have passed with; nothing older was tried."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

BASE = [
    "etils>=1.14.0",
    "flax>=0.12.8",
    "gguf>=0.19.0",
    "grain>=0.2.18",
    "huggingface_hub>=2.4.0",
    "jax>=0.10.2",
    "jinja2>=3.1.6",
    "matplotlib>=3.11.0",
    "numpy>=2.4.0",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "pyarrow>=26.0.0",
    "rich>=15.0.0",
    "safetensors>=0.8.0",
    "scipy>=1.17.1",
    "tensorboardX>=2.6.5",
    "tokenizers>=0.23.1",
    "transformers>=5.23.0",
]

EXTRAS = {
    "test": ["pytest>=9.0.0", "pytest-xdist>=3.8.0", "math-verify>=0.9.0"],
    "dev": ["ruff>=0.17.0", "mypy>=2.4.0", "pyright[nodejs]>=1.1.414"],
    # PyTorch, for the tests that compare with transformers; without it they are skipped. Nothing runs on it.
    "parity": ["torch>=2.13.0", "accelerate>=1.15.0"],
    "tpu": ["jax[tpu]>=0.10.2"],
    "cuda": ["jax[cuda13]>=0.10.2"],
    # For MathAnswer; the other verifiers need nothing.
    "math": ["math-verify>=0.9.0"],
    # For ReasoningGym.
    "reasoning-gym": ["reasoning-gym>=0.1.25"],
}


class BuildWithConfigs(build_py):
    """Copies configs/ into the wheel as prerl_jax/configs/, where `load_config` looks first.

    An editable install needs no copy: without prerl_jax/configs/ `load_config` reads configs/ beside the package.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source in sorted(Path("configs").rglob("*.py")):
                copy = Path(self.build_lib, "prerl_jax", source)
                self.mkpath(str(copy.parent))
                self.copy_file(str(source), str(copy))


setup(
    name="prerl_jax",
    version="0.1.0",
    description="RL of language models in pre-train space, P(y), and post-train space, P(y|x), in JAX",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    install_requires=BASE,
    extras_require=EXTRAS,
    # This makes an editable install a plain path, which type checkers follow. Without it, or with configs/ mapped into
    # the package here, setuptools would install an import hook, which they cannot follow.
    package_dir={"": "."},
    packages=find_packages(include=["prerl_jax", "prerl_jax.*"]),
    cmdclass={"build_py": BuildWithConfigs},
    package_data={"prerl_jax": ["py.typed", "lab_base/*", "samples/*"]},
)
