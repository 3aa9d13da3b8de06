"""ARCHITECTURE.md names files and functions that are there. `test_import_direction` checks its headings."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
PACKAGE = ROOT / "prerl_jax"


def test_the_files_that_the_architecture_page_names_are_there():
    named = set(re.findall(r"`(\w+/\w+\.py)`", ARCHITECTURE))
    assert len(named) > 15
    assert not [name for name in named if not ((PACKAGE / name).is_file() or (ROOT / name).is_file())]


def test_the_rooms_have_the_files_that_their_paragraphs_name():
    rooms = re.findall(r"^### `(\w+)/`\n(.*?)(?=^##)", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    named = [(room, name) for room, text in rooms for name in re.findall(r"`([a-z_0-9]+)`", text)]
    assert len(named) > 60
    assert not [(room, name) for room, name in named if not (PACKAGE / room / f"{name}.py").is_file()]


def test_the_functions_of_the_walk_exist():
    (walk,) = re.findall(r"^## A batch, file by file\n(.*?)^## ", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    source = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    defined = set(re.findall(r"^\s*(?:def|class) (\w+)", source, re.MULTILINE)) | {"on_complete", "max_resamples"}
    named = {part for name in re.findall(r"`([\w.]+)`", walk) if not name.endswith(".py") for part in name.split(".")}
    assert len(named) > 25
    assert not sorted(named - defined - {"run"})
