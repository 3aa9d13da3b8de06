"""Writing Hugging Face folders: the same bits, split files, and nothing half-done."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType
from safetensors import safe_open
from safetensors.numpy import load_file

from prerl_jax.models import hf
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import load_model, save_hf
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.rope import LinearRope

GOLDEN = Path(__file__).parents[1] / "data" / "dual_space_a"
BIASED = DecoderConfig(
    "llama", 24, 16, 32, 3, 4, 2, 6, 500.0, LinearRope(2.0), tied=False, qkv_bias=True, output_bias=True, mlp_bias=True
)


def random_params(model, seed=0):
    """Every leaf random: what `init` leaves at 0 or 1 would hide a swap."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), model.abstract_params())


def test_golden_checkpoint_comes_back_bit_for_bit(tmp_path):
    model, params = load_model(GOLDEN)
    save_hf(tmp_path / "out", model, params)
    ours, theirs = load_file(tmp_path / "out" / "model.safetensors"), load_file(GOLDEN / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    with safe_open(tmp_path / "out" / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses files without
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    assert load_model(tmp_path / "out")[0].config == model.config
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_dtypes_round_as_ieee(dtype, tmp_path):
    model = Decoder(BIASED)
    params = random_params(model)
    save_hf(tmp_path / "out", model, params, dtype=dtype)
    target = np.dtype(dtype or "float32") if dtype != "bfloat16" else np.dtype(ml_dtypes.bfloat16)
    again, loaded = load_model(tmp_path / "out")
    assert again.config.dtype == target.name
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, np.asarray(b).astype(target).astype("f")), loaded, params
    )


def test_split_files_and_sharded_params(tmp_path, monkeypatch):
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    model = Decoder(BIASED, mesh=mesh)
    params = random_params(model)
    monkeypatch.setattr(hf, "MAX_FILE_BYTES", 3000)
    save_hf(tmp_path / "out", model, jax.device_put(params, model.shardings()))
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert len(files) > 5
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    held = {name: file.name for file in files for name in load_file(file)}
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    for file in files:
        tensors = load_file(file).values()
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors) <= 3000
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "out")[1], params)


@pytest.mark.slow
def test_transformers_loads_split_files(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = Decoder(BIASED)
    params = random_params(model)
    monkeypatch.setattr(hf, "MAX_FILE_BYTES", 20_000)
    save_hf(tmp_path / "out", model, params)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = np.arange(12, dtype=np.int32)[None]
    hidden = model.hidden(params, tokens, tokens, np.ones_like(tokens))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    # weights of size 1 make logits of order 100
    np.testing.assert_allclose(model.head(params).logits(hidden), expected, rtol=1e-4, atol=1e-3)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    model, params = load_model(GOLDEN)

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hf.safetensors_file, "write_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_hf(tmp_path / "out", model, params)
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_folder_is_refused(tmp_path):
    model, params = load_model(GOLDEN)
    save_hf(tmp_path, model, params)  # an empty folder will do
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        save_hf(tmp_path, model, params)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_params_that_do_not_fit_are_named(tmp_path):
    model, params = load_model(GOLDEN)
    with pytest.raises(ValueError, match="at unembed"):
        save_hf(tmp_path / "out", model, params | {"unembed": params["embed"].T})
    with pytest.raises(ValueError, match="at embed"):
        save_hf(tmp_path / "out", model, params | {"embed": params["embed"][1:]})
    with pytest.raises(ValueError, match="at final_norm"):
        save_hf(tmp_path / "out", model, {k: v for k, v in params.items() if k != "final_norm"})
    with pytest.raises(ValueError, match="not int8"):
        save_hf(tmp_path / "out", model, params, dtype="int8")
