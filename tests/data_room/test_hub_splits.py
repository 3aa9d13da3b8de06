"""Which files of a data set repository are a split, by its README.md and by the names of its files."""

import pytest

from prerl_jax.data.hub_splits import data_files, matching

GSM8K = (
    "README.md",
    "main/test-00000-of-00001.parquet",
    "main/train-00000-of-00002.parquet",
    "main/train-00001-of-00002.parquet",
    "socratic/train-00000-of-00001.parquet",
)
CONFIGS = (
    {
        "config_name": "main",
        "data_files": [{"split": "train", "path": "main/train-*"}, {"split": "test", "path": ["main/test-*"]}],
    },
    {"config_name": "socratic", "data_files": [{"split": "train", "path": "socratic/train-*"}]},
)


@pytest.mark.parametrize("configs", [CONFIGS, ()])
def test_the_layout_of_gsm8k_with_and_without_a_description(configs):
    assert data_files(GSM8K, configs, "main", "train") == GSM8K[2:4]
    assert data_files(GSM8K, configs, "main", "test") == GSM8K[1:2]
    assert data_files(GSM8K, configs, "socratic", "train") == GSM8K[4:]
    with pytest.raises(ValueError, match=r"socratic"):
        data_files(GSM8K, configs, "", "train")
    with pytest.raises(ValueError, match=r"no (split|data file).*validation"):
        data_files(GSM8K, configs, "main", "validation")
    with pytest.raises(ValueError, match=r"'other'"):
        data_files(GSM8K, configs, "other", "train")


@pytest.mark.parametrize(
    ("described", "split", "found"),
    [
        ("a.jsonl", "train", ("a.jsonl",)),
        (["a.jsonl", "b/c.jsonl"], "train", ("a.jsonl", "b/c.jsonl")),
        ({"test": "b/*.jsonl"}, "test", ("b/c.jsonl",)),
        ([{"split": "all", "path": "**/*.jsonl"}], "all", ("a.jsonl", "b/c.jsonl", "b/d/e.jsonl")),
        ([{"split": "all", "path": "b"}], "all", ("b/c.jsonl", "b/d/e.jsonl")),
        ([{"split": "all", "path": "./b/[cd].jsonl"}], "all", ("b/c.jsonl",)),
    ],
)
def test_the_forms_of_a_description(described, split, found):
    names = ("a.jsonl", "b/c.jsonl", "b/d/e.jsonl", "b/f.py")
    for config in ({"data_files": described}, {"config_name": "any", "data_files": described}):
        assert data_files(names, (config,), "", split) == found


def test_the_default_subset_and_a_folder_of_one():
    described = (
        {"config_name": "a", "data_files": "a.jsonl"},
        {"config_name": "b", "data_dir": "dir", "default": True},
        {"config_name": "c", "data_dir": "dir", "data_files": "t*.csv"},
        {"config_name": "says nothing"},
    )
    names = ("a.jsonl", "dir/train.csv", "dir/trial.csv", "train.csv")
    assert data_files(names, described, "", "train") == ("dir/train.csv",)
    assert data_files(names, described, "c", "train") == ("dir/train.csv", "dir/trial.csv")


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        ("train.jsonl test.jsonl", "train", "train.jsonl"),
        ("gsm8k_train.jsonl gsm8k_test.jsonl", "test", "gsm8k_test.jsonl"),
        (
            "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
            "train",
            "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
        ),
        ("train/part-0.parquet train/part-1.parquet", "train", "train/part-0.parquet train/part-1.parquet"),
        ("data/dev.csv data/train.csv", "validation", "data/dev.csv"),
        ("deepscaler.json dataset_infos.json README.md", "train", "deepscaler.json"),
        (
            "data/aime24-00000-of-00001.parquet data/amc-00000-of-00001.parquet",
            "aime24",
            "data/aime24-00000-of-00001.parquet",
        ),
        ("TRAIN.JSONL", "train", "TRAIN.JSONL"),
    ],
)
def test_names_that_are_published(names, split, found):
    assert data_files(tuple(names.split()), (), "", split) == tuple(found.split())


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        (
            "train.jsonl train.parquet",
            "train",
            "may be the split 'train': train.jsonl, train.parquet",
        ),
        ("train.jsonl train_socratic.jsonl", "train", "several data files"),
        ("a/train.jsonl b/train.jsonl", "train", "Name the subset"),
        ("a.json b.json", "train", "several data files"),
        ("constrain.jsonl test.jsonl", "train", 'the data files are constrain.jsonl, test.jsonl. Name them: files="'),
        ("one.json", "test", "no data file has a name with 'test'; the data files are one.json"),
        ("train.arrow x", "train", 'there is no data file; its files are train.arrow, x. Name them: files="'),
        ("README.md math_qa.py", "train", "math_qa.py. Its data come from a script, and no script is run"),
        ("", "train", "there is no data file"),
    ],
)
def test_what_is_not_clear_is_an_error_that_lists_the_files(names, split, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace('"', ".")):
        data_files(tuple(names.split()), (), "", split)


def test_patterns_of_the_user():
    names = ("a/b.jsonl", "a/c.csv", "a/d.py", "e[1].jsonl")
    assert matching(names, ("a/*.csv", "**/*.jsonl")) == ("a/c.csv", "a/b.jsonl", "e[1].jsonl")
    with pytest.raises(ValueError, match=r"no data file matches 'a/d.py'; the data files are a/b.jsonl"):
        matching(names, ("a/d.py",))


@pytest.mark.parametrize("described", [5, None, [{"split": "train"}], [{"path": "a"}], [[1]], {"train": 1}, [None]])
def test_a_malformed_description_is_an_error(described):
    with pytest.raises(ValueError, match="malformed"):
        data_files(("train.jsonl",), ({"data_files": described},), "", "train")


def test_sets_in_patterns():
    names = ("a1.csv", "a2.csv", "b1.csv")
    assert matching(names, ("[!b]?.csv",)) == names[:2]
    assert matching(names, ("?[1-2].csv",)) == names
    with pytest.raises(ValueError, match="is no pattern"):
        matching(names, ("[z-a].csv",))
