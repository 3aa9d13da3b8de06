from pathlib import Path

import pytest

from prerl_jax.runtime.checkpoint_address import CheckpointAddress


@pytest.mark.parametrize(
    ("text", "workdir", "step"),
    [
        ("/runs/a", "/runs/a", None),
        ("/runs/a@12", "/runs/a", 12),
        ("/runs/a@0", "/runs/a", 0),
        ("/runs/me@home", "/runs/me@home", None),  # an @ of the folder's name
        ("/runs/me@home@3", "/runs/me@home", 3),
        ("/runs/a@-1", "/runs/a@-1", None),
        ("/runs/a@\u00b2", "/runs/a@\u00b2", None),  # a digit, but no number
        ("/runs/a@", "/runs/a@", None),
    ],
)
def test_what_an_address_means(text, workdir, step):
    address = CheckpointAddress.parse(text)
    assert address == CheckpointAddress(Path(workdir), step)
    assert str(address) == text
    assert CheckpointAddress.parse(str(address)) == address
    assert address.checkpoints == Path(workdir) / "checkpoints"


def test_relative_workdirs_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CheckpointAddress.parse("runs/a@4") == CheckpointAddress(tmp_path / "runs" / "a", 4)


@pytest.mark.parametrize("text", ["", "@4"])
def test_an_address_without_a_workdir(text):
    with pytest.raises(ValueError, match=r"names no workdir.*WORKDIR@STEP"):
        CheckpointAddress.parse(text)
