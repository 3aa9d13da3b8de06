"""The final table: its rows out of the records, and what is printed."""

import io

from rich.console import Console

from prerl_jax.analysis.summary import print_table, summary_rows


def test_one_row_for_the_base_and_one_for_each_phase_in_order():
    records = [
        {"step": 0, "phase": "base", "eval/avg@8": 0.44},
        {"step": 1, "phase": "nsr_prerl", "train/reward": 0.5, "alignment/objective": 0.9},
        {"step": 2, "phase": "nsr_prerl", "train/reward": 0.5, "eval/avg@8": 0.6, "eval/reflections": 1.5},
        {"step": 3, "phase": "rl", "eval/avg@8": 0.7, "eval/length": 30.0, "alignment/objective": 0.8},
        {"step": 4, "phase": "rl", "alignment/objective": 0.7},
        {"step": 4, "phase": "rl", "eval/avg@8": 0.8},
    ]
    assert summary_rows(records) == [
        {"at": "base", "step": 0, "eval/avg@8": 0.44},
        {"at": "nsr_prerl", "step": 2, "alignment/objective": 0.9, "eval/avg@8": 0.6, "eval/reflections": 1.5},
        {"at": "rl", "step": 4, "alignment/objective": 0.7, "eval/avg@8": 0.8},
    ]
    assert list(summary_rows(records)[1])[:2] == ["at", "step"]


def test_a_phase_that_is_gone_back_to_has_one_row():
    """After steps of a second phase a changed config made the first one longer."""
    names = ["base", "warm", "rl", "warm", "rl"]
    records = [{"step": step, "phase": name, "eval/avg@8": step / 8} for step, name in enumerate(names)]
    assert [(row["at"], row["step"]) for row in summary_rows(records)] == [("base", 0), ("warm", 3), ("rl", 4)]


def test_what_guards_said_stands_in_the_phase_s_row():
    records = [{"step": n, "phase": name, "eval/avg@8": 0.5} for n, name in enumerate(["base", "warm", "rl"])]
    said = "guard train/length above 9.0 at step 1 -> rolled back to step 0"
    rows = summary_rows(records, ended={"warm": said}, warned={"rl": ["train/length above 8.0 at step 2"]})
    assert [(row.get("ended"), row.get("warned")) for row in rows] == [
        (None, None),
        (said, None),
        (None, ["train/length above 8.0 at step 2"]),
    ]
    console = Console(file=io.StringIO(), width=60)
    print_table(rows, console)
    lines = console.file.getvalue().splitlines()
    assert lines[-2:] == [f"warm ended: {said}", "rl warned: train/length above 8.0 at step 2"]


def test_a_phase_that_was_never_evaluated_has_no_row():
    assert summary_rows([{"step": 1, "phase": "rl", "train/reward": 0.5}]) == []


ROWS = [
    {
        "at": "base",
        "step": 0,
        "eval/avg@8": 0.4375,
        "eval/avg@8_stderr": 0.0215,
        "eval/pass@1": 0.4,
        "eval/pass@8": 0.75,
    },
    {
        "at": "a_phase_with_quite_a_long_name",
        "step": 20,
        "eval/avg@8": 0.65,
        "eval/reflections": 1.5,
        "eval/length": 31.25,
        "alignment/objective": 0.93,
    },
]


def printed(rows, **options):
    file = io.StringIO()
    print_table(rows, Console(file=file, **options))
    return file.getvalue()


def cells(text, at):
    line = next(line for line in text.splitlines() if f" {at} " in line)
    return [cell.strip() for cell in line.strip("│|").replace("│", "|").split("|")]


def test_the_table_shows_every_number_and_a_dash_for_what_is_missing():
    text = printed(ROWS, width=120)
    heading = ["at", "step", "avg@8", "pass@8", "reflections", "length", "alignment"]
    assert cells(text.replace("┃", "|"), "at") == heading
    assert "accuracy" in text
    assert cells(text, "base") == ["base", "0", "0.438 ± 0.021", "0.750", "-", "-", "-"]
    assert cells(text, "a_phase_with_quite_a_long_name")[1:] == ["20", "0.650", "-", "1.50", "31.2", "0.930"]
    assert "\x1b" not in text


def test_a_narrow_terminal_folds_the_name_and_keeps_the_numbers():
    text = printed(ROWS, force_terminal=True, width=80, color_system=None)
    assert "0.438 ± 0.021" in text
    assert "0.930" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_no_rows_and_no_evaluation_print_too():
    assert "accuracy" in printed([])
    assert cells(printed([{"at": "base", "step": 0}]), "base") == ["base", "0", *["-"] * 5]


def test_a_second_table_has_the_accuracy_on_each_source():
    text = printed(
        [{**ROWS[0], "eval/aime/avg@8": 0.25, "eval/aime/avg@8_stderr": 0.125, "eval/amc/avg@8": 1}, ROWS[1]]
    )
    assert cells(text, "aime") == ["aime", "0.250 ± 0.125", "-"]
    assert cells(text, "amc") == ["amc", "1.000", "-"]
    assert "accuracy on" not in printed(ROWS)


def test_a_second_table_has_the_thoughts_that_there_are():
    names = ("eval/thoughts/reflection", "eval/thoughts/transition", "eval/thoughts/subgoal")
    thoughts = [dict(zip(names, counts, strict=True)) for counts in ((0.25, 0.0, 0.0), (1.5, 0.125, 0.0))]
    text = printed([row | counted for row, counted in zip(ROWS, thoughts, strict=True)])
    assert cells(text, "reflection") == ["reflection", "0.25", "1.50"]
    assert cells(text, "transition") == ["transition", "0.00", "0.12"]
    assert "subgoal" not in text
    assert "thoughts per response" not in printed(ROWS)
