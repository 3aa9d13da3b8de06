"""Reading safetensors folders: sharded arrays, split files, and every way in which a folder can be wrong."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from safetensors.numpy import load_file, save_file

from prerl_jax.models.hf import load_model

GOLDEN = Path(__file__).parents[1] / "data" / "dual_space_a"
LAYER = "model.layers.1.self_attn.k_proj.weight"


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, tmp_path / name)
        (tmp_path / name).chmod(0o644)
    return tmp_path


@pytest.fixture
def edit(folder):
    """edit(change): applies `change` to the dict of the folder's tensors and writes them back."""

    def apply(change):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def set_config(folder, **switches):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | switches))


def test_leaves_are_the_tensors_in_our_layout():
    model, params = load_model(GOLDEN)
    tensors, c = load_file(GOLDEN / "model.safetensors"), model.config
    prefix = "model.layers.2."
    k = tensors[prefix + "self_attn.k_proj.weight"].reshape(c.num_kv_heads, c.head_dim, c.hidden_size)
    o = tensors[prefix + "self_attn.o_proj.weight"].reshape(c.hidden_size, c.num_heads, c.head_dim)
    layers = params["layers"]
    np.testing.assert_array_equal(layers["attention"]["k"][2], k.transpose(2, 0, 1))
    np.testing.assert_array_equal(layers["attention"]["o"][2], o.transpose(1, 2, 0))
    np.testing.assert_array_equal(layers["mlp"]["down"][2], tensors[prefix + "mlp.down_proj.weight"].T)
    np.testing.assert_array_equal(params["embed"], tensors["model.embed_tokens.weight"])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), model.abstract_params()
    )


def test_golden_logprobs():
    """log P(y) of the golden rollouts, as PyTorch gives it."""
    model, params = load_model(GOLDEN)
    golden = np.load(GOLDEN / "vectors.npz")
    prefix = json.loads((GOLDEN / "vectors.json").read_text())["prefix_token_id"]
    response, mask = golden["response"].astype(np.int32), golden["response_mask"].astype(bool)
    tokens = np.concatenate([np.full_like(response[:, :1], prefix), response], axis=1)[:, :-1]
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    hidden = model.hidden(params, tokens, positions, np.ones_like(tokens))
    logprobs = jax.nn.log_softmax(model.head(params).logits(hidden))
    ours = np.where(mask, jnp.take_along_axis(logprobs, response[..., None], -1)[..., 0], 0.0)
    np.testing.assert_allclose(ours, golden["logp_pre"], atol=2e-5)


def test_a_mesh_gets_its_shards_only():
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    rules = (("layers", None), ("vocab", None), ("embed", "fsdp"), ("heads", "tensor"), ("kv_heads", "tensor"))
    rules += (("head_dim", None), ("mlp", ("data", "tensor")))
    _, whole = load_model(GOLDEN)
    model, sharded = load_model(GOLDEN, mesh=mesh, rules=rules)
    jax.tree.map(np.testing.assert_array_equal, sharded, whole)
    assert jax.tree.map(lambda x: x.sharding, sharded) == model.shardings()
    gate = sharded["layers"]["mlp"]["gate"]
    assert {shard.data.shape for shard in gate.addressable_shards} == {(3, 24, 24)}


def test_a_mesh_that_does_not_divide_is_refused():
    mesh = jax.make_mesh((1, 1, 8), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with pytest.raises(ValueError, match="does not divide into 8 parts"):
        load_model(GOLDEN, mesh=mesh)


def test_parameter_dtype():
    _, params = load_model(GOLDEN, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


def test_the_stored_dtype_wins_over_config(folder, edit):
    edit(lambda tensors: tensors.update({k: v.astype(np.float16) for k, v in tensors.items()}))
    assert load_model(folder)[0].config.dtype == "float16"


def test_split_files(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    jax.tree.map(np.testing.assert_array_equal, load_model(folder)[1], load_model(GOLDEN)[1])

    (folder / "b.safetensors").rename(folder / "c.safetensors")
    with pytest.raises(FileNotFoundError, match=r"names 'b\.safetensors'"):
        load_model(folder)
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    with pytest.raises(ValueError, match=rf"promises the tensor '{names[1]}' in 'b.safetensors'"):
        load_model(folder)
    for wrong in ({}, {"weight_map": []}, {"weight_map": {names[0]: 1}}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=r"index\.json has no weight_map"):
            load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(LAYER), rf"lacks the tensor '{LAYER}' of shape \(32, 48\)"),
        (lambda t: t.update({LAYER: t[LAYER][:-2]}), rf"'{LAYER}' should have shape \(32, 48\), it has \(30, 48\)"),
        (lambda t: t.update({LAYER: t[LAYER].reshape(48, 32)}), r"should have shape \(32, 48\), it has \(48, 32\)"),
        (
            lambda t: t.update({"model.extra": np.ones((2, 3), "f")}),
            r"unexpected tensor 'model.extra' of shape \(2, 3\)",
        ),
        (lambda t: t.update({LAYER: t[LAYER].astype(np.float64)}), rf"'{LAYER}' is stored as F64"),
        (lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}), "'lm_head.weight' differs"),
        (lambda t: t.update({"lm_head.weight": np.ones((2, 2), "f")}), "'lm_head.weight' differs"),
        (dict.clear, "lacks the tensor 'model.embed_tokens.weight'.* and 34 more"),
    ],
)
def test_wrong_tensors_are_named(folder, edit, change, message):
    edit(change)
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_redundant_tensors_are_allowed(folder, edit):
    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)

    edit(change)
    jax.tree.map(np.testing.assert_array_equal, load_model(folder)[1], load_model(GOLDEN)[1])


def test_untied_needs_its_head(folder, edit):
    set_config(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"lacks the tensor 'lm_head.weight' of shape \(97, 48\)"):
        load_model(folder)
    edit(lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}))
    params = load_model(folder)[1]
    np.testing.assert_array_equal(params["unembed"], params["embed"].T + 1)


def test_config_and_weights_that_do_not_fit(folder):
    set_config(folder, num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"lacks the tensor 'model.layers.3.*and 10 more.*config.json"):
        load_model(folder)
    set_config(folder, num_hidden_layers=2)
    with pytest.raises(ValueError, match=r"unexpected tensor 'model.layers.2"):
        load_model(folder)
    set_config(folder, num_hidden_layers=3, vocab_size=98)
    with pytest.raises(
        ValueError, match=r"'model.embed_tokens.weight' should have shape \(98, 48\), it has \(97, 48\)"
    ):
        load_model(folder)
    set_config(folder, vocab_size=97, attention_bias=True)
    with pytest.raises(ValueError, match=r"lacks the tensor 'model.layers.0.self_attn.._proj.bias'"):
        load_model(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: data[:500],
        lambda data: data[:4],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data[:8] + b"[" + data[9:],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data.replace(b'"shape":[97,48]', b'"shape":[97,49]'),
        lambda data: data.replace(b'"shape":[97,48]', b'"shapo":[97,48]'),
        lambda data: data.replace(b"[0,18624]", b'[0,"862"]'),
    ],
)
def test_damaged_files_are_named(folder, damage):
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"model\.safetensors is (truncated|corrupt)"):
        load_model(folder)


def test_folders_without_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        load_model(folder)
    with pytest.raises(FileNotFoundError, match="There is no model at"):
        load_model(folder / "nothing")


def test_ids_beyond_the_tokenizer_s_are_masked_on_request():
    for valid_ids in (None, 11):
        model, _ = load_model(GOLDEN, valid_ids=valid_ids)
        assert model.valid_ids == valid_ids
