"""The command that pre-trains the lab's base model."""

import pytest

from prerl_jax import lab
from prerl_jax.models.hf import load_model
from prerl_jax.models.tokenizer import load_tokenizer


def test_a_model_that_loads(tmp_path, capsys):
    settings = ["--steps", "2", "--rows", "2", "--layers", "1", "--width", "32"]
    assert lab.main([str(tmp_path / "out"), *settings]) == 0
    assert "step     2/2  loss" in capsys.readouterr().out
    model, _ = load_model(tmp_path / "out")
    assert (model.config.num_layers, model.config.hidden_size) == (1, 32)
    assert model.config.vocab_size == len(load_tokenizer(tmp_path / "out"))


def test_a_folder_that_holds_something_is_refused_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lab, "pretrain", lambda *_, **__: pytest.fail("trained for nothing"))
    (tmp_path / "notes.txt").touch()
    assert lab.main([str(tmp_path)]) == 1
    assert f"error: {tmp_path} exists and is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["--steps", "0"], "at least 1 layer, step and row; got 2, 0 and 96"),
        (["--width", "48"], "multiple of 32"),
        (["--wrong", "1.5"], "shares in [0, 1]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, capsys, settings, says):
    assert lab.main([str(tmp_path / "out"), *settings]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
