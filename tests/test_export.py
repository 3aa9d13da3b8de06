"""The command that turns a step of a run into a Hugging Face folder."""

import dataclasses
import json

import chat_lab
import jax
import numpy as np
import optax
import pytest

from prerl_jax import export
from prerl_jax.config.io import load_config, render
from prerl_jax.core.train_step import init_state
from prerl_jax.data.lab import make_tokenizer
from prerl_jax.lab import architecture
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import load_model, save_hf
from prerl_jax.models.tokenizer import load_tokenizer
from prerl_jax.runtime.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def tiny():
    """(model, params of step 0)."""
    model = Decoder(architecture(len(make_tokenizer()), layers=1, width=32))
    return model, model.init(jax.random.key(0))


@pytest.fixture(scope="module")
def workdir(tiny, tmp_path_factory):
    """A run with checkpoints of steps 5 and 10; step n holds the base's parameters plus n."""
    model, params = tiny
    run = tmp_path_factory.mktemp("run")
    save_hf(run / "base", model, params, make_tokenizer())
    config = load_config("lab")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, path=str(run / "base")))
    (run / "config.py").write_text(render(config))
    state = init_state(params, optax.sgd(1.0), jax.random.key(0))
    checkpoints = Checkpoints(str(run / "checkpoints"), keep_last=2, best=None)
    for step in (5, 10):
        moved = dataclasses.replace(state, params=jax.tree.map(lambda leaf, n=step: leaf + n, params))
        checkpoints.save(step, moved, {}, {}, boundary=False)
    checkpoints.close()
    return run


def embedding(folder):
    return np.asarray(load_model(folder)[1]["embed"])


@pytest.mark.parametrize(("arguments", "step"), [([], 10), (["--step", "5"], 5)])
def test_writes_the_newest_step_or_the_one_asked_for(workdir, tiny, tmp_path, capsys, arguments, step):
    out = tmp_path / "deep" / "out"
    assert export.main([str(workdir), str(out), *arguments]) == 0
    assert f"wrote step {step} of" in capsys.readouterr().out
    np.testing.assert_array_equal(embedding(out), np.asarray(tiny[1]["embed"] + step))
    assert load_tokenizer(out)("1+2")["input_ids"] == make_tokenizer()("1+2")["input_ids"]
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(("chosen", "ends"), [(None, (2, 22)), ((5, 22), (5, 22)), ((), (2,))])
def test_the_folder_names_the_tokens_that_ended_a_response(tmp_path, chosen, ends):
    """Those of the run: the config's where it names some; else the model's, the tokenizer's and the template's."""
    base = chat_lab.small(tmp_path / "base", chat_lab.TEMPLATE)
    config = chat_lab.of(load_config("lab"), base)
    config = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, stop_tokens=chosen))
    (tmp_path / "config.py").write_text(render(config))
    checkpoints = Checkpoints(str(tmp_path / "checkpoints"), keep_last=1, best=None)
    checkpoints.save(1, init_state(load_model(base)[1], optax.sgd(1.0), jax.random.key(0)), {}, {}, boundary=False)
    checkpoints.close()
    export.export(tmp_path, tmp_path / "out")
    for name in ("config.json", "generation_config.json"):
        named = json.loads((tmp_path / "out" / name).read_text())["eos_token_id"]
        assert tuple(named if isinstance(named, list) else [named]) == ends


def test_dtype(workdir, tmp_path):
    export.export(workdir, tmp_path / "out", dtype="bfloat16")
    assert load_model(tmp_path / "out")[0].config.dtype == "bfloat16"


def test_overwrites_a_model_only_when_told_and_nothing_else_ever(workdir, tmp_path, tiny, capsys):
    out = tmp_path / "out"
    export.export(workdir, out, step=5)
    assert export.main([str(workdir), str(out)]) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert embedding(out)[0, 0] == np.asarray(tiny[1]["embed"])[0, 0] + 5
    export.export(workdir, out, overwrite=True)
    assert embedding(out)[0, 0] == np.asarray(tiny[1]["embed"])[0, 0] + 10
    (tmp_path / "file").write_text("precious")
    for other in (workdir, tmp_path / "file"):
        with pytest.raises(FileExistsError, match="remove it yourself"):
            export.export(workdir, other, overwrite=True)


def test_an_overwrite_that_fails_leaves_the_old_model(workdir, tmp_path, tiny, monkeypatch):
    out = tmp_path / "out"
    export.export(workdir, out, step=5)
    monkeypatch.setattr(export, "save_hf", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export.export(workdir, out, overwrite=True)
    assert embedding(out)[0, 0] == np.asarray(tiny[1]["embed"])[0, 0] + 5
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out"]


def test_what_is_not_there(workdir, tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint of step 7 .*\[5, 10\]"):
        export.export(workdir, tmp_path / "out", step=7)
    with pytest.raises(FileNotFoundError, match=r"no config\.py"):
        export.export(tmp_path, tmp_path / "out")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.py").write_text((workdir / "config.py").read_text())
    with pytest.raises(ValueError, match="no checkpoints in"):
        export.export(tmp_path / "new", tmp_path / "out")
    assert not (tmp_path / "out").exists()
