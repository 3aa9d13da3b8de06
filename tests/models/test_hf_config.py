"""config.json in its spellings, and the switches that are refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from prerl_jax.models.hf import read_config
from prerl_jax.models.hf_config import config_json, parse_config
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.rope import LinearRope, Llama3Rope

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LLAMA, QWEN2, QWEN3 = ({"model_type": family} | SHAPE for family in ("llama", "qwen2", "qwen3"))
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("switches", "theta", "scaling"),
    [
        ({}, 10000.0, None),
        ({"rope_theta": 5e5}, 5e5, None),
        ({"rope_theta": 5e5, "rope_scaling": None}, 5e5, None),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 1e6, None),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_type": "default"}}, 1e6, None),
        ({"rope_theta": 100, "rope_scaling": {"type": "linear", "factor": 2}}, 100.0, LinearRope(2)),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}}, 7.0, LinearRope(2.0)),
        (
            {"rope_theta": 5e5, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 99}},
            5e5,
            Llama3Rope(8.0, 1.0, 4.0, 99),
        ),
        # transformers' fallback where the original length is not said
        ({"rope_parameters": LLAMA3, "max_position_embeddings": 77}, 10000.0, Llama3Rope(8.0, 1.0, 4.0, 77)),
        (
            {"rope_theta": 3.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
            | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 3.0}},
            3.0,
            LinearRope(2.0),
        ),
    ],
)
def test_rope_spellings(switches, theta, scaling):
    config = parse_config(LLAMA | switches)
    assert (config.rope_theta, config.rope_scaling) == (theta, scaling)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (LLAMA, {"head_dim": 8, "qkv_bias": False, "output_bias": False, "qk_norm": False, "tied": False}),
        (LLAMA | {"attention_bias": True}, {"qkv_bias": True, "output_bias": True, "mlp_bias": False}),
        (LLAMA | {"mlp_bias": True, "head_dim": 12}, {"mlp_bias": True, "head_dim": 12}),
        (LLAMA | {"head_dim": None, "num_key_value_heads": None}, {"head_dim": 8, "num_kv_heads": 4}),
        (QWEN2, {"qkv_bias": True, "output_bias": False, "qk_norm": False, "head_dim": 8}),
        (QWEN3 | {"head_dim": 16}, {"qk_norm": True, "qkv_bias": False, "head_dim": 16}),
        (QWEN3, {"head_dim": 128}),
        (QWEN3 | {"attention_bias": True}, {"qkv_bias": True, "output_bias": True}),
        (QWEN2 | {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}, {"tied": True, "rms_norm_eps": 1e-5}),
        (QWEN2 | {"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        (QWEN2 | {"dtype": "float16", "torch_dtype": "float16"}, {"dtype": "float16"}),
        # a window that is configured, but not in use
        (QWEN2 | {"sliding_window": 4096, "use_sliding_window": False}, {"num_layers": 2}),
        (QWEN2 | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}, {"num_layers": 2}),
    ],
)
def test_switches(raw, expected):
    config = dataclasses.asdict(parse_config(raw))
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("config", "generation", "eos"),
    [
        ({}, None, ()),
        ({"eos_token_id": 3}, None, (3,)),
        ({"eos_token_id": [3, 4]}, {}, (3, 4)),
        ({"eos_token_id": 3}, {"eos_token_id": [5, 3]}, (5, 3)),
        ({"eos_token_id": 3}, {"eos_token_id": 0}, (0, 3)),
        ({"eos_token_id": [3, 4, 3]}, {"eos_token_id": [4, 5]}, (4, 5, 3)),
        ({"eos_token_id": 3}, {"eos_token_id": None}, (3,)),
    ],
)
def test_eos_ids(config, generation, eos):
    assert parse_config(QWEN2 | config, generation).eos_token_ids == eos


def test_the_default_eos_of_a_family_is_for_files_that_name_none():
    assert parse_config(LLAMA).eos_token_ids == (2,)
    assert parse_config(LLAMA, {"eos_token_id": [9, 8]}).eos_token_ids == (9, 8)
    assert parse_config(LLAMA | {"eos_token_id": None}).eos_token_ids == ()


@pytest.mark.parametrize("eos", ["</s>", "2", -1, [2, -1], [2, "</s>"], 2.0, True, [[2]], {"id": 2}])
def test_eos_ids_that_are_none(eos):
    for named in ((LLAMA | {"eos_token_id": eos}, None), (LLAMA, {"eos_token_id": eos})):
        with pytest.raises(ValueError, match=r"eos_token_id = .* must be a token's number, 0 or more"):
            parse_config(*named)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (LLAMA | {"model_type": "gemma3"}, "Unknown model_type 'gemma3'"),
        (SHAPE, "Unknown model_type None"),
        (LLAMA | {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        (LLAMA | {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        (LLAMA | {"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        (LLAMA | {"model_type": ["llama"]}, r"Unknown model_type \['llama'\]"),
        (LLAMA | {"num_attention_heads": 0}, "num_attention_heads = 0; .* whole number of 1 or more"),
        (LLAMA | {"num_attention_heads": "4"}, "num_attention_heads = '4'"),
        (LLAMA | {"num_key_value_heads": 0}, "num_key_value_heads = 0"),
        (LLAMA | {"head_dim": -8}, "head_dim = -8"),
        (LLAMA | {"vocab_size": 61.0}, r"vocab_size = 61\.0"),
        (LLAMA | {"rms_norm_eps": "1e-6"}, "rms_norm_eps = '1e-6'"),
        (LLAMA | {"tie_word_embeddings": "false"}, "tie_word_embeddings = 'false'; it must be true or false"),
        (LLAMA | {"eos_token_id": "</s>"}, "eos_token_id = '</s>'"),
        (LLAMA | {"eos_token_id": [2, "</s>"]}, r"eos_token_id = \[2, '</s>'\]"),
        (LLAMA | {"rope_theta": 0}, "rope_theta = 0; it must be a number above 0"),
        (LLAMA | {"rope_scaling": "linear"}, "rope_scaling = 'linear'; it must be an object"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": "2"}}, "factor = '2'"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": 0}}, "factor = 0"),
        (LLAMA | {"rope_parameters": {"partial_rotary_factor": 0.25}}, "partial_rotary_factor = 0.25"),
        (LLAMA | {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        (LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
        (LLAMA | {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, "rope type 'dynamic'"),
        (LLAMA | {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention"),
        (LLAMA | {"rope_scaling": {"type": "linear"}}, r"no \['factor'\]"),
        (LLAMA | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        (
            LLAMA
            | {"rope_scaling": {"type": "linear", "factor": 2.0}}
            | {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
            "contradict",
        ),
        (QWEN2 | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}, "sliding_window = 64"),
        (QWEN3 | {"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({key: value for key, value in LLAMA.items() if key != "hidden_size"}, "no 'hidden_size'"),
        (LLAMA | {"num_key_value_heads": 3}, "4 query heads do not share 3"),
    ],
)
def test_what_the_decoder_does_not_do_is_refused_by_name(raw, message):
    with pytest.raises(ValueError, match=message):
        parse_config(raw)


CONFIGS = [
    DecoderConfig("llama", 61, 32, 48, 2, 4, 2, 8, bos_token_id=1, eos_token_ids=(2, 5), mlp_bias=True, tied=False),
    DecoderConfig("qwen2", 61, 32, 48, 2, 4, 2, 16, 1e6, LinearRope(2.0), qkv_bias=True, dtype="bfloat16"),
    DecoderConfig("qwen3", 61, 32, 48, 2, 4, 4, 16, 5e5, Llama3Rope(8.0, 1.0, 4.0, 99), qk_norm=True, pad_token_id=0),
    DecoderConfig("llama", 61, 32, 48, 2, 4, 2, 8, qkv_bias=True, output_bias=True),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_config_round_trip(config):
    raw, generation = json.loads(json.dumps(config_json(config)))
    assert parse_config(raw, generation) == config
    # either spelling of rope alone gives the same
    assert parse_config({k: v for k, v in raw.items() if k != "rope_parameters"}, generation) == config
    assert parse_config({k: v for k, v in raw.items() if k not in ("rope_theta", "rope_scaling")}, generation) == config


@pytest.mark.parametrize("config", CONFIGS)
def test_transformers_reads_the_same(config, tmp_path):
    auto = pytest.importorskip("transformers").AutoConfig
    raw, _ = config_json(config)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    theirs = auto.from_pretrained(tmp_path)
    assert parse_config(json.loads(theirs.to_json_string())) == config
    assert theirs.rope_parameters == raw["rope_parameters"]


@pytest.mark.parametrize(
    "switches",
    [
        {"model_type": "gpt2"},
        {"qk_norm": True},
        {"qkv_bias": True},
        {"model_type": "qwen3"},
        {"model_type": "qwen2"},
        {"model_type": "qwen2", "qkv_bias": True, "mlp_bias": True},
    ],
)
def test_what_no_hugging_face_config_says_is_not_written(switches):
    with pytest.raises(ValueError, match=r"cannot express|Unknown model_type"):
        config_json(DecoderConfig(**{"model_type": "llama"} | switches, **dict(zip(FIELDS, SIZES, strict=True))))


FIELDS = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")
SIZES = (61, 32, 48, 2, 4, 2, 8)


def test_read_config_of_the_golden_checkpoint():
    config = read_config(Path(__file__).parents[1] / "data" / "dual_space_a")
    assert (config.model_type, config.rope_theta, config.head_dim) == ("qwen3", 1e6, 16)
    assert (config.bos_token_id, config.eos_token_ids, config.pad_token_id) == (1, (2,), 0)


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither a folder with a config\.json nor a \.gguf"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"should hold a JSON object"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"hidden_act": "relu"}))
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*hidden_act = 'relu'"):
        read_config(tmp_path)
