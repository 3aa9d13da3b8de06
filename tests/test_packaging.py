"""What a wheel, an editable install and a source distribution hold, and what the shell scripts do."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
LAUNCH = 'exec python -m prerl_jax.launch "$@"'


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The tree that goes into a wheel."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_a_wheel_has_every_file(built):
    have = {str(p.relative_to(built)) for p in built.rglob("*") if p.is_file()}
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "prerl_jax").rglob("*.py")}
    configs = {f"prerl_jax/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.py")}
    data = {str(p.relative_to(ROOT)) for name in ("lab_base", "samples") for p in (ROOT / "prerl_jax" / name).glob("*")}
    assert have == sources | configs | data | {"prerl_jax/py.typed"}


def from_wheel(built, folder, *arguments):
    """Runs Python in a folder, with the package of a wheel; returns its standard output."""
    environment = os.environ | {"PYTHONPATH": str(built), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_configs_load_from_a_wheel_in_any_directory(built, tmp_path):
    code = "\n".join(
        [
            "import prerl_jax",
            f"assert prerl_jax.__file__.startswith({str(built)!r}), prerl_jax.__file__",
            "from prerl_jax.config.io import config_names",
            "print([prerl_jax.load_config(name).name for name in config_names()] == config_names())",
        ]
    )
    assert from_wheel(built, tmp_path, "-c", code).strip() == "True"


@pytest.mark.slow
def test_the_lab_is_planned_from_a_wheel(built, tmp_path):
    said = from_wheel(built, tmp_path, "-m", "prerl_jax.launch", "--config", "lab", "--dry-run")
    assert "train data: 4096 prompts" in said


def build(tree, kind, out):
    """Runs one of setuptools' build hooks in a tree; returns the path of what it makes."""
    pytest.importorskip("setuptools")
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True)
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the source tree: builds leave files behind."""
    folder = tmp_path_factory.mktemp("tree") / "source"
    for name in ("prerl_jax", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "MANIFEST.in", "README.md", "ARCHITECTURE.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_an_editable_install_is_a_plain_path(tree, tmp_path):
    """Type checkers follow a path; they cannot follow an import hook."""
    with zipfile.ZipFile(build(tree, "editable", tmp_path)) as wheel:
        files = [name for name in wheel.namelist() if ".dist-info/" not in name]
        (path,) = files
        assert path.endswith(".pth")
        assert wheel.read(path).decode().strip() == str(tree)
    assert not (tree / "prerl_jax" / "configs").exists()


def test_a_source_distribution_has_the_configs(tree, tmp_path):
    with tarfile.open(build(tree, "sdist", tmp_path)) as archive:
        files = {Path(name).relative_to("prerl_jax-0.1.0").as_posix() for name in archive.getnames()}
    configs = {str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.py")}
    assert configs | {"setup.py", "LICENSE", "README.md", "ARCHITECTURE.md", "prerl_jax/lab_base/config.json"} <= files


def test_metadata():
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "--name", "--version", "--license"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["prerl_jax", "0.1.0", "Apache-2.0"]
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "APPENDIX: How to apply the Apache License" in licence


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_a_script_parses_and_stops_at_errors(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("script", SCRIPTS[:-1], ids=lambda p: p.name)
def test_a_launcher_ends_in_the_one_line(script):
    assert script.read_text().splitlines()[-1] == LAUNCH


def fake(folder, name, text):
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def run(script, *arguments, path):
    environment = os.environ | {"PATH": f"{path}:{os.environ['PATH']}"}
    return subprocess.run(["bash", str(script), *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "usage: launch/tpu_vm.sh NAME ZONE"),
        (("name",), "usage:"),
        (("--config", "x"), "NAME ZONE come first"),
        (("name", "us-west4-a", "--config", "x"), "--workdir /SHARED/FOLDER"),
        (("name", "us-west4-a", "--workdir", "runs/x"), "--workdir /SHARED/FOLDER"),
    ],
)
def test_tpu_vm_checks_its_arguments(arguments, says, tmp_path):
    fake(tmp_path, "gcloud", "echo REACHED")
    done = run(ROOT / "launch/tpu_vm.sh", *arguments, path=tmp_path)
    assert (done.returncode, "REACHED" in done.stdout) == (2, False)
    assert says in done.stderr


def test_tpu_vm_hands_its_arguments_to_every_worker_as_they_are(tmp_path):
    """The command that gcloud is given is run here, with the worker's own part in place of bash."""
    worker = tmp_path / "worker"
    worker.mkdir()
    fake(
        tmp_path,
        "gcloud",
        f'case "$4" in ssh) printf "%s\\n" "$@" >{tmp_path}/ssh; eval "cd {worker}; ${{!#}}" ;; esac',
    )
    fake(tmp_path, "tar", "true")
    fake(tmp_path, "git", "true")
    fake(tmp_path, "bash", f'printf "%s\\0" "$PYTHON" "$@" >{tmp_path}/worker_arguments')
    given = ["--workdir", "/mnt/a b", "--set", "phases=dsrl(warmup=1, total=2)", "--set", "name='it''s $HOME'"]
    command = ["/bin/bash", str(ROOT / "launch/tpu_vm.sh"), "my-tpu", "us-west4-a", *given]
    subprocess.run(command, env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True)
    assert "--worker=all" in (tmp_path / "ssh").read_text().splitlines()
    arguments = (tmp_path / "worker_arguments").read_text().split("\0")[:-1]
    assert arguments == ["python3.11", "launch/tpu_vm.sh", "--on-worker", *given]


def test_tpu_vm_says_that_changes_stay_here(tmp_path):
    fake(tmp_path, "gcloud", "true")
    fake(tmp_path, "git", 'case "$3" in status) echo "$CHANGED" ;; log) echo "abc (Last)" ;; esac')
    for changed in ("", " M a.py"):
        command = ["/bin/bash", str(ROOT / "launch/tpu_vm.sh"), "my-tpu", "us-west4-a", "--workdir", "/mnt/a"]
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CHANGED": changed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert ("uncommitted changes are not copied; the workers get abc (Last)" in done.stderr) == bool(changed)


def test_training_on_a_worker_outlives_the_connection(tmp_path):
    """The first command is killed, the second follows the same training to its end, a third begins anew; --stop."""
    worker, bin = tmp_path / "prerl_jax", tmp_path / "prerl_jax/.venv/bin"
    bin.mkdir(parents=True)
    (worker / "launch").mkdir()
    script = shutil.copy(ROOT / "launch/tpu_vm.sh", worker / "launch")
    (bin / "activate").write_text(f"PATH={bin}:$PATH\n")
    fake(bin, "pip", "true")
    fake(bin, "python", 'echo "started $*"; while [[ ! -e go ]]; do sleep 0.05; done; echo ended; exit 3')
    command = ["bash", script, "--on-worker", "--set", "a=(1, 2)"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert first.stdout.readline() == "started -m prerl_jax.launch --set a=(1, 2)\n"
    os.killpg(first.pid, signal.SIGTERM)  # SIGHUP is ignored under nohup
    first.wait()
    other = subprocess.run([*command, "more"], capture_output=True, text=True)
    assert (other.returncode, "other arguments (--set" in other.stderr) == (2, True)
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert second.stdout.readline().startswith("started")
    (worker / "go").touch()
    assert second.communicate()[0] == "ended\n"
    assert second.returncode == 3
    fake(bin, "python", "echo anew")
    third = subprocess.run(command, capture_output=True, text=True)
    assert (third.returncode, third.stdout) == (0, "anew\n")
    fake(bin, "python", "echo anew; sleep 60")
    fourth = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert fourth.stdout.readline() == "anew\n"
    fake(tmp_path, "gcloud", f'eval "cd {tmp_path}; ${{!#}}"')
    for said in ("", "nothing is under way\n"):
        assert run(ROOT / "launch/tpu_vm.sh", "my-tpu", "us-west4-a", "--stop", path=tmp_path).stdout == said
        assert fourth.wait(20) == 1


def test_local_hands_on_its_arguments(tmp_path):
    fake(tmp_path, "python", f'[[ $1 == -c ]] || printf "%s\\n" "$@" >{tmp_path}/given')
    assert run(ROOT / "launch/local.sh", "--set", "a=(1, 2)", path=tmp_path).returncode == 0
    assert (tmp_path / "given").read_text().splitlines() == ["-m", "prerl_jax.launch", "--set", "a=(1, 2)"]
    fake(tmp_path, "python", "exit 1")
    done = run(ROOT / "launch/local.sh", path=tmp_path)
    assert done.returncode == 1
    assert "prerl_jax is not installed" in done.stderr
