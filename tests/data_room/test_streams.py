"""Streams: a folder that grows while it is read, positions that are exact, and files that may not change."""

from __future__ import annotations

import json

import pytest

from prerl_jax.data import Example, IteratorProblems, Problem, StreamProblems, arrivals
from prerl_jax.data.arrivals import ExampleStream, StreamEnded
from prerl_jax.data.columns import Columns, Dropped
from prerl_jax.data.golds import MarkedGold


def lines(first, count):
    return "".join(f'{{"prompt": "p{n}", "answer": "{n}"}}\n' for n in range(first, first + count))


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def numbers_from(start):
    return (Problem(f"p{n}", str(n)) for n in range(start, 10))


def no_problems(start):
    return [5] * (3 - start)


def encoded(problem):
    if problem.answer == "13":
        return Dropped("it is unlucky"), ""
    return Example(problem, (1,)), "it is seven" if problem.answer == "7" else ""


def opened(source, batch=2, keep=100):
    return ExampleStream(source, encoded, batch, keep)


def folder(path, **more):
    return StreamProblems(str(path), **{"wait": 0.0} | more)


def take(stream, count=1):
    return [[stream[n].problem.prompt for n in next(stream)] for _ in range(count)]


def prompts(first, count):
    return [[f"p{n}", f"p{n + 1}"] for n in range(first, first + 2 * count, 2)]


def test_files_are_read_in_the_order_of_their_names_and_grow(tmp_path):
    append(tmp_path / "b.jsonl", lines(3, 2))
    append(tmp_path / "a.jsonl", lines(0, 3))
    append(tmp_path / "c.txt", "no")
    stream = opened(folder(tmp_path))
    assert take(stream, 2) == prompts(0, 2)
    append(tmp_path / "b.jsonl", "\n" + lines(5, 1))
    assert take(stream) == prompts(4, 1)
    append(tmp_path / "b.jsonl", lines(6, 1))
    with pytest.raises(StreamEnded, match="6 were taken, and 1 wait for a batch of 2"):
        next(stream)
    append(tmp_path / "c.jsonl", lines(7, 1))
    assert take(stream) == prompts(6, 1)


def test_a_half_written_line_is_left_for_later(tmp_path):
    file, line = tmp_path / "a.jsonl", lines(1, 1)
    append(file, lines(0, 1) + line[:9])
    stream = opened(folder(tmp_path))
    with pytest.raises(StreamEnded):
        next(stream)
    append(file, line[9:-1])
    with pytest.raises(StreamEnded):
        next(stream)
    append(file, "\n")
    assert take(stream) == prompts(0, 1)
    append(file, lines(2, 2)[:-1])
    append(tmp_path / "b.jsonl", "")  # a later file ends the last line of this one
    assert take(stream) == prompts(2, 1)


@pytest.mark.parametrize("taken", range(5))
def test_resume_at_every_position_also_where_the_folder_has_grown(tmp_path, taken):
    append(tmp_path / "a.jsonl", lines(0, 5))
    append(tmp_path / "b.jsonl", lines(5, 3))
    stream = opened(folder(tmp_path))
    take(stream, taken)
    state = json.loads(json.dumps(stream.get_state()))
    if taken < 4:
        stream.first()  # what is only looked at is not taken
    assert stream.get_state() == state
    append(tmp_path / "b.jsonl", lines(8, 2))
    append(tmp_path / "c.jsonl", lines(10, 2))
    if taken > 2:
        (tmp_path / "a.jsonl").unlink()  # it was read
    fresh = opened(folder(tmp_path, wait=1.0))  # another limit is the same stream
    fresh.set_state(state)
    assert take(fresh, 6 - taken) == prompts(2 * taken, 6 - taken)
    stream.set_state(state)  # and backwards
    assert take(stream, 6 - taken) == prompts(2 * taken, 6 - taken)


def shrink(path):
    (path / "b.jsonl").write_text(lines(5, 1))


def rewrite(path):
    (path / "b.jsonl").write_text(lines(5, 3).replace("p6", "q6"))


def remove(path):
    (path / "b.jsonl").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [(shrink, "may only grow"), (rewrite, "another line 2 than the checkpoint"), (remove, "is gone")],
)
def test_a_changed_file_is_an_error_on_resume(tmp_path, change, message):
    append(tmp_path / "a.jsonl", lines(0, 5))
    append(tmp_path / "b.jsonl", lines(5, 3))
    stream = opened(folder(tmp_path), batch=7)
    next(stream)
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        stream.set_state(stream.get_state())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", lines(9, 1), r"a\.jsonl has changed after it was read"),
        ("aa.jsonl", lines(9, 1), r"aa\.jsonl appeared after b\.jsonl was begun"),
    ],
)
def test_a_problem_that_would_never_be_read_is_an_error(tmp_path, name, text, message):
    append(tmp_path / "a.jsonl", lines(0, 1))
    append(tmp_path / "b.jsonl", lines(1, 2))
    stream = opened(folder(tmp_path))
    take(stream)
    append(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        next(stream)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    append(tmp_path / "b.jsonl", lines(0, 5))
    stream = opened(folder(tmp_path))
    take(stream)
    shrink(tmp_path)
    with pytest.raises(ValueError, match="may only grow"):
        next(stream)


def test_a_layout_that_does_not_fit_names_the_folder_and_the_map_that_would(tmp_path):
    append(tmp_path / "a.jsonl", '{"question": "p", "answer": "so #### 4"}\n')
    fits = r"StreamProblems\(folder, maps.GSM8K\)"
    with pytest.raises(ValueError, match=rf"{tmp_path}, a\.jsonl, line 1: .*{fits}"):
        next(opened(folder(tmp_path)))


def test_bad_rows(tmp_path):
    append(tmp_path / "a.jsonl", '{"prompt": "p"}\nno json\n"5"\n' + lines(0, 2) + '{"prompt": "p", "answer": ""}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: .*'answer'.*skip_bad_rows=True.*Name the columns"):
        next(opened(folder(tmp_path)))
    stream, said = opened(folder(tmp_path, skip_bad_rows=True)), []
    assert take(stream) == prompts(0, 1)
    with pytest.raises(StreamEnded, match=r"3 rows dropped: bad row, 1 rows dropped: "):
        next(stream)
    stream.listen(said.append)
    assert len(said) == 4
    assert said[1].startswith("train data: a.jsonl, line 2: dropped: ")


def test_what_cannot_be_used_is_counted_and_the_counts_are_resumed(tmp_path):
    append(tmp_path / "a.jsonl", lines(6, 2) + lines(13, 1) * 150 + lines(8, 2))
    stream, said = opened(folder(tmp_path)), []
    stream.listen(said.append)
    take(stream, 2)
    assert said[0] == "train data: a.jsonl, line 2: trained on: it is seven"
    assert len(said) == 12
    assert said[-1] == "train data: 100 rows so far: dropped: it is unlucky"
    fresh = opened(folder(tmp_path))
    fresh.set_state(stream.get_state())
    with pytest.raises(StreamEnded, match="150 rows dropped: it is unlucky"):
        next(fresh)


def test_worked_solutions_of_the_first_batch_are_said_once(tmp_path):
    solved = "".join(json.dumps({"prompt": f"q{n}", "answer": f"1 + {n}\n#### {n + 1}"}) + "\n" for n in range(4))
    append(tmp_path / "a.jsonl", solved)
    stream, said = opened(folder(tmp_path)), []
    stream.listen(said.append)
    take(stream, 2)
    (note,) = said
    assert note.startswith("train data: 2 of 2 answers are worked solutions")
    assert 'Columns(..., gold=MarkedGold("####"))' in note
    fresh, said = opened(folder(tmp_path, columns=Columns(gold=MarkedGold("####")))), []
    fresh.listen(said.append)
    take(fresh, 2)
    assert said == []


def test_a_stream_that_repeats(tmp_path):
    append(tmp_path / "a.jsonl", lines(0, 3))
    source = folder(tmp_path, then="repeat")
    stream = opened(source)
    expected = [["p0", "p1"], ["p2", "p0"], ["p1", "p2"], ["p0", "p1"]]
    assert take(stream, 2) == expected[:2]
    fresh = opened(source)
    fresh.set_state(stream.get_state())
    assert take(fresh, 2) == expected[2:]
    empty = opened(folder(tmp_path / "..", then="repeat"))
    with pytest.raises(StreamEnded, match="none to repeat"):
        next(empty)


def test_a_stream_waits(tmp_path, monkeypatch):
    append(tmp_path / "a.jsonl", lines(0, 1))
    monkeypatch.setattr(arrivals.time, "sleep", lambda seconds: append(tmp_path / "a.jsonl", lines(1, 1)))
    stream, said = opened(folder(tmp_path, wait=60.0)), []
    stream.listen(said.append)
    assert take(stream) == prompts(0, 1)
    assert said == [
        f"train data: {tmp_path} has no further problem now: 0 were taken, and 1 wait for a batch of 2; "
        "waiting 60 s for more"
    ]


def test_only_the_newest_examples_are_kept(tmp_path):
    append(tmp_path / "a.jsonl", lines(0, 8))
    stream = opened(folder(tmp_path), keep=4)
    take(stream, 4)
    assert stream[4].problem.prompt == "p4"
    with pytest.raises(KeyError):
        stream[3]


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_an_iterator_resumes(taken):
    source = IteratorProblems(f"{__name__}:numbers_from")
    stream = opened(source)
    take(stream, taken)
    fresh = opened(source)
    fresh.set_state(json.loads(json.dumps(stream.get_state())))
    assert take(fresh, 5 - taken) == prompts(2 * taken, 5 - taken)
    with pytest.raises(StreamEnded):
        next(fresh)
    again = opened(IteratorProblems(f"{__name__}:numbers_from", then="repeat"))
    assert take(again, 6)[-1] == ["p0", "p1"]


def test_iterators_that_cannot_be():
    with pytest.raises(ValueError, match="problem 0: the iterator must yield Problem"):
        next(opened(IteratorProblems(f"{__name__}:no_problems")))
    with pytest.raises(StreamEnded, match="3 rows dropped: bad row"):
        next(opened(IteratorProblems(f"{__name__}:no_problems", skip_bad_rows=True)))
    for path in ("numbers_from", "no_such:f", f"{__name__}:no", ":", ""):
        with pytest.raises(ValueError, match=r"must be 'package\.module:function'"):
            IteratorProblems(path)
    with pytest.raises(ValueError, match="must be a function"):
        IteratorProblems("json:__name__")


def test_sources_that_cannot_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        next(opened(folder(tmp_path / "none")))
    with pytest.raises(ValueError, match="wait is -1"):
        StreamProblems("x", wait=-1)
    with pytest.raises(ValueError, match="then is 'stop'"):
        StreamProblems("x", then="stop")
    append(tmp_path / "a.jsonl", lines(0, 2))
    stream = opened(folder(tmp_path))
    with pytest.raises(ValueError, match="does not belong to the stream"):
        stream.set_state({"next_index": 3, "size": 5, "batch": 2, "seed": 0})
