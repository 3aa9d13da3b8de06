"""The tokens that end a response: who names them, where they differ, and chat templates of all kinds."""

import dataclasses

import chat_lab
import pytest
import tiny_run

from prerl_jax import ChatTemplate, PlainText
from prerl_jax.lab import architecture
from prerl_jax.trainer.setup import set_up
from prerl_jax.trainer.stop_tokens import end_of_turn, stop_tokens

TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
PLAIN_TURNS = "{% for m in messages %}{{ '### ' + m.role + ': ' }}"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im", "<|eot|>"]
ENDS_A_TURN = "<|im_end|> (22, tokenizer, chat template)"


@pytest.fixture(scope="module")
def make_tokenizer():
    """A tokenizer with the tokens SPECIAL, from id 22, and with <plain> and four spaces, which are not special."""

    def make(template, **special):
        tokenizer = chat_lab.make_tokenizer(template)
        tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL, **special})
        tokenizer.add_tokens(["<plain>", "    "])
        return tokenizer

    return make


def config(template=None, **sampling):
    tiny = tiny_run.config()
    data = dataclasses.replace(tiny.data, template=template or ChatTemplate())
    return dataclasses.replace(tiny, data=data, sampling=dataclasses.replace(tiny.sampling, **sampling))


@pytest.mark.parametrize(
    ("template", "token"),
    [
        (TURNS + "{{ m.content + '<|im_end|>\n' }}{% endfor %}", "<|im_end|>"),
        (TURNS + "{{ m.content | trim }}{{ '\n<|im_end|>' }}{% endfor %}", "<|im_end|>"),  # a new line before it
        (TURNS + "{{ '<think>\n\n</think>\n\n' + m.content + '<|im_end|>' }}{% endfor %}", "<|im_end|>"),
        (
            TURNS + "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
            "{% endgeneration %}{% else %}{{ m.content + '<|eot|>' }}{% endif %}{% endfor %}",
            "<|im_end|>",
        ),
        (TURNS + "{{ m.content + '<|im_end|>' }}{% endfor %}{{ '<|endoftext|>' }}", "<|im_end|>"),  # the first of two
        (TURNS + "{{ m.content.split('</think>')[-1] + ' ' + eos_token }}{% endfor %}", "<|im_end|>"),
        (
            TURNS + "{{ m.content }}{{ '<|im_end|>' if not loop.last else '<|endoftext|>' }}{% endfor %}",
            "<|endoftext|>",
        ),
        (TURNS + "{{ m.content + '<plain>\n' }}{% endfor %}", "<plain>"),  # added, and not special
        (TURNS + "{{ m.content + '\n[/ANSWER]<|eot|>' }}{% endfor %}", "<|eot|>"),  # a footer before it
        (TURNS + "{{ m.content | tojson + '<|im_end|>' }}{% endfor %}", "<|im_end|>"),
        (TURNS + "{{ m.content }}{{ '<|im_end|>' if not loop.last }}{% endfor %}", "<|im_end|>"),
        (TURNS + "{{ m.content + '\n' }}{% endfor %}", "<|im_start|>"),  # what begins the next turn
        ("{{ messages[1].content + '<|eot|>' + messages[2].content }}", "<|eot|>"),
        (TURNS + "{% if again is defined %}{{ m.content + '<|eot|>' }}{% endif %}{% endfor %}", "<|eot|>"),
    ],
)
def test_the_token_that_ends_a_turn(make_tokenizer, template, token):
    tokenizer = make_tokenizer(template)
    assert end_of_turn(tokenizer, {"again": True}) == tokenizer.convert_tokens_to_ids(token)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (PLAIN_TURNS + "{{ m.content + '\n' }}{% endfor %}", r"writes '\\n' behind what .*, which has no added token"),
        (PLAIN_TURNS + "{{ m.content }}{% endfor %}", "writes '' behind"),
        (PLAIN_TURNS + "{{ m.content + '    \n' }}{% endfor %}", "writes '    "),  # the added token of four spaces
        (TURNS + "{{ '<|im_end|>' }}{% endfor %}", "leaves out what the assistant says"),
        (TURNS + "{{ m.content[0].text + '<|im_end|>' }}{% endfor %}", r"\(UndefinedError: 'str object' has"),
        ("{{ raise_exception('no assistant') }}", r"does not render .* \(TemplateError: no assistant\)"),
        ("{{ messages[2].content }}", r"does not render .* \(UndefinedError"),
        ("{{ messages[0].content + 1 }}", r"does not render .* \(TypeError"),
        ("{% for m in messages %}", r"does not render .* \(TemplateSyntaxError"),
    ],
)
def test_a_template_that_ends_no_turn_is_said_and_the_others_decide(make_tokenizer, template, says):
    tokenizer = make_tokenizer(template)
    with pytest.raises(ValueError, match=says):
        end_of_turn(tokenizer, {})
    found = stop_tokens(config(), architecture(len(tokenizer), 1, 32), tokenizer)
    assert found.ids == (2, 22)
    assert len(found.notes) == 2
    assert found.notes[0] == "responses end at </s> (2, model) and <|im_end|> (22, tokenizer)"
    assert found.notes[1].startswith("the chat template names no token that ends a turn: it ")


@pytest.mark.parametrize(
    ("eos", "template", "kept", "ids", "note"),
    [
        (
            "<|im_end|>",
            chat_lab.TEMPLATE,
            (2,),
            (2, 22),
            "</s> (2, model) and <|im_end|> (22, tokenizer, chat template)",
        ),
        ("</s>", chat_lab.TEMPLATE, (2,), (2, 22), "</s> (2, model, tokenizer) and <|im_end|> (22, chat template)"),
        ("</s>", None, (2,), (2,), None),
        ("<|im_end|>", chat_lab.TEMPLATE, (22,), (22,), None),
        ("<|im_end|>", chat_lab.TEMPLATE, (), (22,), None),
        ("<|im_end|>", None, (22, 2), (22, 2), "<|im_end|> (22, model, tokenizer) and </s> (2, model)"),
        (None, None, (2,), (2,), None),
    ],
)
def test_the_union_of_all_and_what_is_said(eos, template, kept, ids, note):
    tokenizer = chat_lab.make_tokenizer(template)
    tokenizer.eos_token = eos
    model = dataclasses.replace(architecture(len(tokenizer), 1, 32), eos_token_ids=kept)
    for form in (ChatTemplate(), PlainText()):
        found = stop_tokens(config(form), model, tokenizer)
        assert found.ids == ids
        assert found.notes == (() if note is None else (f"responses end at {note}",))


def test_the_config_decides_alone():
    tokenizer = chat_lab.make_tokenizer()
    model = architecture(len(tokenizer), 1, 32)
    assert stop_tokens(config(stop_tokens=(5,)), model, tokenizer).ids == (5,)
    assert stop_tokens(config(stop_tokens=()), model, tokenizer).ids == ()


def test_the_template_s_arguments_are_those_of_the_run(make_tokenizer):
    tokenizer = make_tokenizer(TURNS + "{{ m.content + {'short': '<|eot|>'}[style] }}{% endfor %}")
    model = architecture(len(tokenizer), 1, 32)
    found = stop_tokens(config(ChatTemplate((("style", "short"),))), model, tokenizer)
    assert found.named["chat template"] == (tokenizer.convert_tokens_to_ids("<|eot|>"),)
    assert "chat template" not in stop_tokens(config(), model, tokenizer).named


def test_nobody_names_a_token():
    tokenizer = chat_lab.make_tokenizer(None)
    tokenizer.eos_token = None
    model = dataclasses.replace(architecture(len(tokenizer), 1, 32), eos_token_ids=())
    with pytest.raises(ValueError, match=r"no response would ever end\. Name one with sampling\.stop_tokens"):
        stop_tokens(config(), model, tokenizer)


@pytest.mark.parametrize(
    ("vocabulary", "model", "settings", "says"),
    [
        (88, (2, 23), {}, r"stop token 23 \(model\) can never be sampled: .* have 23 token ids"),
        (88, (10**12,), {}, r"stop token 1000000000000 \(model\)"),
        (20, (2,), {}, r"stop token 22 \(tokenizer\) .* have 20 token ids"),
        (88, (2,), {"stop_tokens": (2, 30)}, r"stop token 30 \(sampling\.stop_tokens\)"),
    ],
)
def test_a_token_that_cannot_be_sampled(vocabulary, model, settings, says):
    architecture_of = dataclasses.replace(architecture(vocabulary, 1, 32), eos_token_ids=model)
    with pytest.raises(ValueError, match=says):
        stop_tokens(config(**settings), architecture_of, chat_lab.make_tokenizer())


def test_a_run_s_setup(tmp_path):
    setup = set_up(chat_lab.of(tiny_run.config(), chat_lab.write(tmp_path / "model")))
    assert setup.stop_tokens == (2, 22)
    assert setup.model.valid_ids == 23
    assert setup.notes[:2] == (
        f"responses end at </s> (2, model) and {ENDS_A_TURN}",
        "the model has 88 token ids and its tokenizer 23: the 65 ids from 23 have probability 0, in sampling and in "
        "every score",
    )
    shipped = set_up(tiny_run.config())
    assert (shipped.stop_tokens, shipped.model.valid_ids, len(shipped.notes)) == ((2,), None, 2)
