"""The README's Python runs as it stands, from the repository's root, and its commands are ones."""

import re
import shlex
from pathlib import Path

import pytest

from prerl_jax import export, launch
from prerl_jax.config.io import load_config
from prerl_jax.config.overrides import apply_overrides

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["metrics"]["train/skipped"] == 0
    assert int(names["state"].step) == 1
    assert float(names["alignment"]["alignment/objective"]) == pytest.approx(0, abs=1)


def commands():
    """The words of every command in the README's shell blocks and the docs', by what it runs."""
    texts = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
    blocks = [block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines for part in line.split("&&") if (words := shlex.split(part, comments=True))]


def launched(words):
    """The arguments of prerl_jax.launch in a command, None in another one."""
    if words[:3] == ["python", "-m", "prerl_jax.launch"]:
        return words[3:]
    return words[3:] if words[0] == "launch/tpu_vm.sh" else None


def test_commands_that_train_are_accepted():
    found = [arguments for words in commands() if (arguments := launched(words)) is not None]
    assert len(found) >= 3
    for arguments in found:
        parsed = launch.parser().parse_args(arguments)
        apply_overrides(load_config(parsed.config), [text for group in parsed.overrides for text in group])
        assert not any("..." in word for word in arguments)


def test_commands_that_export_name_a_folder_that_a_command_before_them_makes(monkeypatch):
    workdirs, exported = set(), []
    monkeypatch.setattr(export, "export", lambda workdir, *_, **__: exported.append(workdir) or 0)
    for words in commands():
        if (arguments := launched(words)) is not None:
            parsed = launch.parser().parse_args(arguments)
            workdirs.add(str(parsed.workdir or f"runs/{load_config(parsed.config).name}"))
        elif words[:3] == ["python", "-m", "prerl_jax.export"]:
            assert export.main(words[3:]) == 0
            assert exported.pop() in workdirs


def test_the_other_programs_are_there():
    for words in commands():
        if words[0].startswith("launch/"):
            assert (ROOT / words[0]).is_file()
        elif words[:2] == ["python", "-m"]:
            assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file(), words
        else:
            assert words[0] in ("pip", "pytest", "python", "."), words
