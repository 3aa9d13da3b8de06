"""The prefix of a response in P(y), with tokenizers of a few words."""

import pytest

from prerl_jax import Phase, PostTrainSpace, PreTrainSpace, PromptDropout, Term
from prerl_jax.data.prefix import prefix_id, resolve_prefix


class Words:
    """A tokenizer of words; without an unknown token it raises for what it does not know, as the fast ones do."""

    def __init__(self, *words, bos=None, eos=None, unk=None):
        self.vocab = {word: number for number, word in enumerate(words)}
        self.bos_token_id, self.eos_token_id = self.vocab.get(bos), self.vocab.get(eos)
        self.unk_token, self.unk_token_id = unk, self.vocab.get(unk)

    def __len__(self):
        return len(self.vocab)

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        try:
            return {
                "input_ids": [
                    self.vocab.get(w, self.unk_token_id) if self.unk_token else self.vocab[w] for w in text.split()
                ]
            }
        except KeyError as error:
            raise Exception("Missing [UNK] token") from error

    def get_vocab(self):
        return self.vocab


QWEN = Words("a", "b", "<|im_start|>", "</s>", eos="</s>")
LLAMA = Words("a", "b", "<s>", "</s>", "<unk>", bos="<s>", eos="</s>", unk="<unk>")


@pytest.mark.parametrize(
    ("prefix", "tokenizer", "expected"),
    [
        ("auto", QWEN, 2),
        ("auto", Words("<s>", "<|im_start|>", bos="<s>"), 1),
        ("auto", LLAMA, 2),
        ("auto", Words("a", "</s>", eos="</s>"), 1),
        ("b", QWEN, 1),
        ("<unk>", LLAMA, 4),
        (3, QWEN, 3),
        (0, QWEN, 0),
        (None, QWEN, None),
    ],
)
def test_the_token_of_a_prefix(prefix, tokenizer, expected):
    assert prefix_id(prefix, tokenizer) == expected


@pytest.mark.parametrize(
    ("prefix", "tokenizer", "says"),
    [
        ("a b", QWEN, r"'a b' is 2 tokens, \[0, 1\]; it must be one token"),
        ("", QWEN, r"'' is 0 tokens"),
        ("z", QWEN, r"does not know the prefix 'z' \(Missing .* None for none"),
        ("z", LLAMA, "'z' is the unknown token '<unk>'; it must be one token"),
        (4, QWEN, "the prefix 4 is outside the tokenizer's vocabulary of 4 tokens"),
        (-1, QWEN, "the prefix -1 is outside"),
        ("auto", Words("a"), r"has no <\|im_start\|>, BOS or EOS"),
    ],
)
def test_what_is_no_prefix(prefix, tokenizer, says):
    with pytest.raises(ValueError, match=says):
        prefix_id(prefix, tokenizer)


def test_the_prefixes_of_phases_and_of_their_terms():
    terms = (Term(PreTrainSpace("b")), Term(PostTrainSpace()), Term(PromptDropout(0.5)))
    phases = Phase("p", 1, PreTrainSpace(None)), Phase("mixed", 1, terms=terms)
    plain, mixed = resolve_prefix(phases, QWEN)
    assert plain.space == PreTrainSpace(None)
    assert [term.space for term in mixed.terms] == [PreTrainSpace(1), PostTrainSpace(), PromptDropout(0.5, 2)]
