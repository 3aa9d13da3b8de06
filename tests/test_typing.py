"""Type checkers see the package's types in an editable install: they accept a user's code, and report its mistakes."""

import re
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / "typing"
README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment in which the package is installed as `pip install -e .` installs it."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("environment")
    shutil.copytree(ROOT / "prerl_jax", folder / "source" / "prerl_jax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", folder / "source")
    (folder / "source" / "configs").mkdir()
    code = f"from setuptools import build_meta; print(build_meta.build_editable({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "source", capture_output=True, text=True, check=True
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as wheel:
        wheel.extractall(packages)
    # The libraries of this environment. Its own .pth files, this package's among them, do not count there.
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def reports(python, tmp_path_factory):
    """{checker: {file: {line: what it reports}}} of the user's files."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("user_script.py", "mistakes.py"):
        shutil.copy(FOLDER / name, folder)
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", README, re.DOTALL)):
        (folder / f"readme_{number}.py").write_text(code)
    # As in the package's mypy.ini: PyTorch behind transformers takes most of the time.
    (folder / "mypy.ini").write_text("[mypy]\n[mypy-transformers.*]\nfollow_imports = skip\n")
    mypy = [sys.executable, "-m", "mypy", "--python-executable", str(python), "--hide-error-context", "."]
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", str(python), "."]
    found = {}
    for name, command in {"mypy": mypy, "pyright": pyright}.items():
        pytest.importorskip(name)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr  # both find the mistakes, and nothing else goes wrong
        found[name] = {}
        for text in done.stdout.splitlines():
            if match := re.match(r"^\s*(?:.*/)?(\w+\.py):(\d+)(?::\d+)?(?: -|:) error: (.*)$", text):
                found[name].setdefault(match[1], {})[int(match[2])] = match[3]
    return found


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_users_code_is_accepted(reports, checker):
    assert {file: said for file, said in reports[checker].items() if file != "mistakes.py"} == {}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_mistakes_are_reported(reports, checker):
    lines = (FOLDER / "mistakes.py").read_text().splitlines()
    expected = {number for number, line in enumerate(lines, start=1) if line.endswith("# error")}
    assert set(reports[checker]["mistakes.py"]) == expected, reports[checker]["mistakes.py"]
