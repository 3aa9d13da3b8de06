"""Models of the hub: what is downloaded, and when; what is said where something is not to be had."""

import logging
import re

import pytest
from loopback_hub import Hub, serving

from prerl_jax.models.hub import Repo, repo_of
from prerl_jax.models.location import hub_model, resolve

TOKEN = "hf_secret0123456789"
FILES = {
    "config.json": b"{}",
    "README.md": b"# A model",
    "tokenizer.json": b'{"a": 1}',
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ messages }}",
    "model-00001-of-00002.safetensors": b"weights" * 1000,
    "model-00002-of-00002.safetensors": b"more",
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"raise SystemExit",
    "original/consolidated.safetensors": b"twice",
}
SMALL = {"config.json", "tokenizer.json", "merges.txt", "chat_template.jinja"}
WEIGHTS = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


@pytest.fixture
def hub(hub_cache):
    hub = Hub({"model me/tiny": [FILES | {"config.json": b'{"old": 1}'}, FILES], "model me/pickled": {"a.bin": b"x"}})
    with serving(hub) as address:
        hub_cache(address)
        yield hub


def test_only_what_a_model_needs_is_downloaded_and_only_once(hub):
    folder = resolve("me/tiny")
    assert set(hub.files_asked()) == SMALL
    assert resolve("me/tiny", weights=True) == folder
    assert {path.name for path in folder.iterdir()} == SMALL | WEIGHTS
    assert all((folder / name).read_bytes() == FILES[name] for name in SMALL | WEIGHTS)
    assert sorted(hub.files_asked()) == sorted(SMALL | WEIGHTS)
    resolve("me/tiny", weights=True)
    assert len(hub.files_asked()) == len(SMALL | WEIGHTS)


def test_a_commit_in_the_cache_needs_no_request(hub, monkeypatch):
    at_commit = str(repo_of("me/tiny").pinned())
    assert at_commit == f"me/tiny@{hub.commit('model me/tiny')}"
    folder = resolve(at_commit, weights=True)
    hub.asked.clear()
    assert resolve(at_commit, weights=True) == folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve("me/tiny", weights=True) == folder
    assert not hub.asked


def test_a_revision_is_an_older_commit(hub):
    old = hub.commit("model me/tiny", 0)
    assert (resolve(f"me/tiny@{old}") / "config.json").read_bytes() == b'{"old": 1}'
    assert (resolve("me/tiny@main") / "config.json").read_bytes() == b"{}"


def test_a_download_that_breaks_off_goes_on_from_there(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    name = "model-00001-of-00002.safetensors"
    hub.breaks.add(name)
    assert (resolve("me/tiny", weights=True) / name).read_bytes() == FILES[name]
    ranges = [wanted for method, path, wanted in hub.asked if method == "GET" and path.endswith(name)]
    assert ranges == [None, f"bytes={len(FILES[name]) // 2}-"]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("me/none", FileNotFoundError, r"no model repository 'me/none' at http.*private.*no such local path"),
        ("me/tiny@v9", FileNotFoundError, r"'me/tiny' has no revision 'v9'"),
        ("me/tiny@" + "0" * 40, FileNotFoundError, r"'me/tiny' has no revision '0000"),
        ("me/pickled", ValueError, r"has no \.safetensors file, only a\.bin"),
    ],
)
def test_what_the_hub_has_not_is_named(hub, path, error, message):
    with pytest.raises(error, match=message):
        resolve(path)
    assert not hub.files_asked()


@pytest.mark.parametrize("token", [None, TOKEN, TOKEN + "\x01"])
@pytest.mark.parametrize("locked", ["gated", "private"])
def test_a_locked_model_says_how_to_get_in_and_shows_no_token(hub, monkeypatch, caplog, capfd, token, locked):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("HF_TOKEN", token or "")
    getattr(hub, locked).add("model me/tiny")
    with pytest.raises(OSError, match=r"HF_TOKEN") as caught:
        resolve("me/tiny")
    if token == TOKEN or token is None:
        wanted = "accept its terms at http.*/me/tiny" if locked == "gated" else "or it is private"
        assert re.search(wanted, str(caught.value))
        assert ("no token is set" in str(caught.value)) == (token is None)
    said = [str(caught.value), str(caught.value.__cause__), caplog.text, *capfd.readouterr()]
    assert not [text for text in said if TOKEN in text]
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert resolve("me/tiny").is_dir()


def test_without_a_network_and_a_cache_it_says_what_to_do(hub_cache, monkeypatch):
    hub_cache("http://user:secret@127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9 does not answer.*`hf download me/tiny`"):
        resolve("me/tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for path in ("me/tiny", f"me/tiny@{'0' * 40}"):
        with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE is set.*lacks it.*`hf download me/tiny"):
            resolve(path)


def test_a_cache_with_a_part_is_not_taken_for_the_whole(hub, monkeypatch):
    resolve("me/tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert (resolve("me/tiny") / "config.json").is_file()
    with pytest.raises(ConnectionError, match="a part of it"):
        resolve("me/tiny", weights=True)


def test_a_local_path_comes_first(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_model("me/tiny") == Repo("me/tiny")
    (tmp_path / "me" / "tiny").mkdir(parents=True)
    assert str(resolve("me/tiny")) == "me/tiny"
    assert hub_model("me/tiny") is None
    assert not hub.asked


@pytest.mark.parametrize(
    "text", ["tiny", "/me/tiny", "./me/tiny", "me/tiny/", "a/b/c", "me/tiny@", "~/tiny", "../x", ""]
)
def test_what_is_no_id_of_the_hub(text):
    assert repo_of(text) is None


def test_what_is_one():
    assert repo_of("Qwen/Qwen3-0.6B") == Repo("Qwen/Qwen3-0.6B")
    assert repo_of("Qwen/Qwen3-0.6B@refs/pr/4") == Repo("Qwen/Qwen3-0.6B", "refs/pr/4")
