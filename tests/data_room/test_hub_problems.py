"""Problems of the hub: their files, their readers, and what is said where a data set has others."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import Hub, serving

from prerl_jax import BOXED, Columns, FileProblems, HubFiles, HubProblems, NumberGold, layouts
from prerl_jax.data.hub import READERS

CARD = b"---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n---\n# GSM8K\n"
LINES = b'{"q": "What is 1 + 1?", "a": "2"}\n'


def table(number):
    file = io.BytesIO()
    pq.write_table(pa.table({"question": [f"What is {number} + 2?"], "answer": [f"So.\n#### {number + 2}"]}), file)
    return file.getvalue()


@pytest.fixture
def hub(hub_cache):
    gsm8k = {f"main/train-0000{i}-of-00002.parquet": table(i) for i in range(2)}
    hub = Hub(
        {
            "dataset openai/gsm8k": gsm8k | {"README.md": CARD, "gsm8k.py": b"raise SystemExit", "main/x.bin": b"x"},
            "dataset me/own": {"train.jsonl": LINES, "test.jsonl": LINES * 2, "README.md": b"no head"},
            "dataset me/odd": {"README.md": b"---\nconfigs: [1, {\n---\n", "a.jsonl": LINES},
        }
    )
    with serving(hub) as address:
        hub_cache(address)
        yield hub


def test_a_published_data_set_is_read_by_its_reader(hub):
    problems, notes = HubProblems("openai/gsm8k", "main", split="train").load()
    assert [problem.answer for problem in problems] == ["2", "3"]
    assert not notes
    assert set(hub.files_asked()) == {"README.md", *(f"main/train-0000{i}-of-00002.parquet" for i in range(2))}
    count = len(hub.files_asked())
    assert HubProblems("openai/gsm8k", "main").load()[0] == problems
    assert len(hub.files_asked()) == count


def test_other_instructions_and_columns():
    source = HubProblems("openai/gsm8k", "main", instructions=BOXED).source
    assert source == layouts.gsm8k(HubFiles("openai/gsm8k", "main"), BOXED)
    columns = Columns("q", "a", NumberGold())
    assert HubProblems("me/own", columns=columns).source == FileProblems(HubFiles("me/own"), columns)
    assert HubProblems("openai/gsm8k", columns=columns).source.columns == columns


def test_every_known_data_set_has_a_reader():
    for repo in READERS:
        assert isinstance(HubProblems(repo).source, FileProblems)
    assert HubProblems("math-ai/amc23").source.columns.prompt == "question"
    for repo in ("regisss/math_qa", "allenai/math_qa@refs/convert/parquet"):
        assert HubProblems(repo).source == layouts.mathqa(HubFiles(repo))


def test_columns_of_its_own_and_an_error_that_names_them(hub):
    columns = Columns("q", "a")
    assert [problem.answer for problem in HubProblems("me/own", columns=columns).load()[0]] == ["2"]
    assert len(FileProblems(HubFiles("me/own", split="test"), columns).load()[0]) == 2
    assert len(FileProblems(HubFiles("me/own", files=("t*.jsonl",)), columns).load()[0]) == 3
    assert len(HubProblems("me/odd", columns=columns, files="a.jsonl").load()[0]) == 1
    with pytest.raises(ValueError, match=r"keys .* are missing; it has \['a', 'q'\]"):
        HubProblems("me/own").load()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            HubProblems("me/own", split="validation"),
            ValueError,
            r"'me/own' of the hub: no data file .*test.jsonl, train",
        ),
        (HubProblems("openai/gsm8k", "socratic"), ValueError, r"no subset 'socratic'; name one of \['main'\]"),
        (HubProblems("openai/gsm8k", "main", "test"), ValueError, r"no split 'test', only \['train'\]"),
        (HubProblems("openai/gsm8k", files="gsm8k.py"), ValueError, r"no data file matches 'gsm8k.py'"),
        (HubProblems("me/odd"), ValueError, r"head of its README.md cannot be read"),
        (HubProblems("me/none"), FileNotFoundError, r"no dataset repository 'me/none'"),
        (HubProblems("me/own@v1"), FileNotFoundError, r"no revision 'v1'"),
    ],
)
def test_what_a_data_set_has_not_is_named(hub, source, error, message):
    with pytest.raises(error, match=message):
        source.load()


def test_a_gated_data_set_says_where_its_terms_are(hub):
    hub.gated.add("dataset openai/gsm8k")
    with pytest.raises(PermissionError, match=r"accept its terms at http.*/datasets/openai/gsm8k"):
        HubProblems("openai/gsm8k", "main").load()


def test_without_a_network_it_says_how_to_fill_the_cache(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"`hf download me/own --repo-type dataset`"):
        HubProblems("me/own", columns=Columns("q", "a")).load()
    assert not hub.asked


@pytest.mark.parametrize("repo", ["gsm8k", "a/b/c", "openai/gsm8k@", "/data/train.jsonl", ""])
def test_a_repository_is_owner_and_name(repo):
    for source in (HubProblems, HubFiles):
        with pytest.raises(ValueError, match="OWNER/NAME"):
            source(repo)
