"""Tokenizers: from a Hugging Face folder's tokenizer.json, or rebuilt from a GGUF file's metadata.

A GGUF file has a vocabulary, merges, token types and the name of a pre-tokenizer. llama.cpp (llama-vocab.cpp) defines
what the name means. This module repeats that for the byte-level BPE vocabularies of the decoder's models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prerl_jax.models.gguf import field, open_reader
from prerl_jax.models.location import resolve

CONTROL, USER_DEFINED = 3, 4
"""GGUF token types. Control tokens are special; user-defined tokens are plain text that is matched as a whole."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    "qwen2": _CONTRACTIONS + r"\p{N}" + _REST,
    "deepseek-r1-qwen": _CONTRACTIONS + r"\p{N}" + _REST,
    "llama-bpe": _CONTRACTIONS + r"\p{N}{1,3}" + _REST,
    "llama3": _CONTRACTIONS + r"\p{N}{1,3}" + _REST,
    "llama-v3": _CONTRACTIONS + r"\p{N}{1,3}" + _REST,
}
GPT2, GPT2_DIGITS = "gpt-2", "smollm"
"""Pre-tokenizers that split text like GPT-2; the second separates every digit first."""


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a Hugging Face folder or of a .gguf file, with its chat template where there is one.

    Args:
      path: the folder or file, `package:NAME/file`, or OWNER/NAME of the hub.

    Returns: a transformers.PreTrainedTokenizerFast.

    Raises FileNotFoundError where there is none, ValueError for a GGUF vocabulary that is not supported.
    """
    path = resolve(path)
    if path.suffix == ".gguf":
        return _from_gguf(path)
    if not (path / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{path} has no tokenizer.json. If it has another tokenizer format, load that with "
            f"transformers.AutoTokenizer and `save_pretrained` it there once."
        )
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(path), local_files_only=True)


def known_ids(vocab_size: int, tokenizer: Any) -> int:
    """The number of token ids, from 0, that both a model and its tokenizer have.

    Many models have a larger matrix than their tokenizer has tokens, padded to a round size. The ids above the
    tokenizer's largest are in no text that it writes. Ids below the largest that name no token are counted as well.

    Args:
      vocab_size: V, the model's ids.
      tokenizer: a Hugging Face tokenizer; its added tokens count.
    """
    return min(vocab_size, max(tokenizer.get_vocab().values()) + 1)


def _from_gguf(path: Path) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    reader = open_reader(path)
    kind, pre = field(reader, "tokenizer.ggml.model"), field(reader, "tokenizer.ggml.pre", "")
    if kind != "gpt2":
        raise ValueError(f"{path}: tokenizer.ggml.model is {kind!r}; only byte-level BPE ('gpt2') is rebuilt.")
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field(reader, "tokenizer.ggml.merges", [])]
    llama3 = SPLITS.get(pre) == SPLITS["llama3"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=llama3))
    tokenizer.pre_tokenizer = _pre_tokenizer(pre, path)
    tokenizer.decoder = decoders.ByteLevel()
    if SPLITS.get(pre) == SPLITS["qwen2"]:
        tokenizer.normalizer = normalizers.NFC()
    types = list(zip(tokens, field(reader, "tokenizer.ggml.token_type", []), strict=False))
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in types if kind == CONTROL]
    )
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, kind in types if kind == USER_DEFINED])

    def named(key):
        index = field(reader, f"tokenizer.ggml.{key}_token_id")
        return None if index is None else tokens[index]

    special = {"bos_token": named("bos"), "eos_token": named("eos")}
    special |= {"unk_token": named("unknown"), "pad_token": named("padding")}
    _add_ends(tokenizer, reader, special, vocabulary, add_bos=llama3)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{key: token for key, token in special.items() if token is not None},
        chat_template=field(reader, "tokenizer.chat_template"),
        model_max_length=field(reader, f"{field(reader, 'general.architecture')}.context_length"),
        clean_up_tokenization_spaces=False,
    )


def _pre_tokenizer(pre: str, path: Path):
    from tokenizers import Regex, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in SPLITS)
    if pre in SPLITS:
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLITS[pre]), behavior="isolated"), byte_level])
    if pre == GPT2_DIGITS:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if pre == GPT2:
        return byte_level
    raise ValueError(
        f"{path}: unknown pre-tokenizer {pre!r} (tokenizer.ggml.pre); known: {[*SPLITS, GPT2, GPT2_DIGITS]}. Take the "
        f"tokenizer from the model's Hugging Face folder instead."
    )


def _add_ends(tokenizer, reader: Any, special, vocabulary, *, add_bos: bool) -> None:
    """Adds BOS before and EOS after every text, where the file says so. Llama 3 files do not say it for BOS."""
    from tokenizers import processors

    first = special["bos_token"] if field(reader, "tokenizer.ggml.add_bos_token", add_bos) else None
    last = special["eos_token"] if field(reader, "tokenizer.ggml.add_eos_token", False) else None
    ends = [token for token in (first, last) if token]
    if not ends:
        return
    single = [token for token in (first, "$A", last) if token]
    pair = [token for token in (first, "$A", first, "$B", last) if token]
    ids = [(token, vocabulary[token]) for token in dict.fromkeys(ends)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
