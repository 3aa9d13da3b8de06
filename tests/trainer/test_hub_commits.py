"""The commits of a run's config, which a resumed run keeps; the whole run is in test_hub_run.py."""

import dataclasses

import pytest
from loopback_hub import Hub, serving

from prerl_jax import FileProblems, HubFiles, HubProblems, load_config
from prerl_jax.trainer.hub import FILE, fetch, pinned, write_commits

LINES = b'{"prompt": "1 + 1", "answer": "2"}\n'


@pytest.fixture
def hub(hub_cache):
    files = {"train.jsonl": LINES, "test.jsonl": LINES * 3}
    model = {"config.json": b"{}", "model.safetensors": b"w", "tokenizer.json": b"[]"}
    hub = Hub({"model me/tiny": model, "dataset me/own": [files, files]})
    with serving(hub) as address:
        hub_cache(address)
        yield hub


@pytest.fixture
def config(hub):
    lab = load_config("lab")
    old = hub.commit("dataset me/own", 0)
    data = {"train": HubProblems("me/own"), "evaluation": FileProblems(HubFiles(f"me/own@{old}", split="test"))}
    return dataclasses.replace(
        lab,
        model=dataclasses.replace(lab.model, path="me/tiny"),
        data=dataclasses.replace(lab.data, **data),
    )


def test_names_become_commits_and_stay_what_the_workdir_records(hub, config, tmp_path):
    found, commits = pinned(config, tmp_path)
    model, data = hub.commit("model me/tiny"), hub.commit("dataset me/own")
    assert found.model.path == f"me/tiny@{model}"
    assert found.data.train == HubProblems(f"me/own@{data}")
    assert found.data.evaluation == config.data.evaluation
    assert commits["model me/tiny@main"] == model
    assert commits["dataset me/own@main"] == data
    write_commits(tmp_path, commits)
    hub.repos["dataset me/own"].append({"train.jsonl": LINES * 2})
    hub.asked.clear()
    assert pinned(config, tmp_path) == (found, commits)
    assert pinned(found, tmp_path)[0] == found
    assert not hub.asked
    assert pinned(config)[0].data.train.repo == f"me/own@{hub.commit('dataset me/own')}"
    write_commits(tmp_path, {})
    assert not (tmp_path / FILE).exists()


def test_everything_is_downloaded_before_the_set_up(hub, config):
    found, _ = pinned(config)
    fetch(found)
    assert set(hub.files_asked()) == {"config.json", "model.safetensors", "tokenizer.json", "train.jsonl", "test.jsonl"}
    hub.down = True
    assert len(found.data.train.load()[0]) == 1


def test_a_config_without_the_hub_is_itself(tmp_path):
    lab = load_config("lab")
    assert pinned(lab, tmp_path) == (lab, {})
    fetch(lab)


def test_what_cannot_be_looked_up_is_an_error(hub, config):
    hub.repos.clear()
    with pytest.raises(FileNotFoundError, match=r"no (model|dataset) repository"):
        pinned(config)
