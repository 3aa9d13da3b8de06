"""The README's Python runs as it stands, from the repository's root."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_python_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    assert names["metrics"]["train/skipped"] == 0
    assert int(names["state"].step) == 1
    assert float(names["alignment"]["alignment/objective"]) == pytest.approx(0, abs=1)
