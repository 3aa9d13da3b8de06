"""What the plan prints, from numbers made by hand."""

import dataclasses

from hand_made import RATES, row

from prerl_jax.plan.program import Lengths
from prerl_jax.plan.steps import Run, Step
from prerl_jax.plan.table import WIDTH, heading, run_lines, table
from prerl_jax.plan.topology import Slice
from prerl_jax.runtime.chips import GIB, chip_named


def test_a_row_has_its_numbers_in_the_order_of_the_headings():
    text = table([row("train", peak=4, flops=200, hbm=50, links=40)], RATES, 16 * GIB)
    (line,) = [line for line in text.splitlines() if line.startswith("train")]
    assert line.replace("|", "").split() == [
        "train",
        "4.00",
        "75%",
        "200",
        "50",
        "40",
        "2,000",
        "500",
        "4,000",
        "links",
    ]
    assert "parameters 1.00, cache 2.00, temporaries and results 1.00" in text
    headings = [line for line in text.splitlines() if "bound by" in line]
    assert [len(part) for part in headings[0].split("|")][:-1] == [len(part) for part in line.split("|")][:-1]


def test_tiny_and_large_numbers_keep_the_columns():
    rows = [row("train", flops=1e-9, hbm=1234567.8, links=0), row("decode", tokens=16, refused="no", peak=123)]
    lines = table(rows, RATES, 16 * GIB).splitlines()
    assert all(len(line) <= WIDTH + len(" bound by") for line in lines)
    assert any("<0.001" in line and "1,234,568" in line for line in lines)
    assert any(line.split()[:3] == ["decode", ">", "123.00"] and "does not fit" in line for line in lines)
    assert any("16 tokens of each slot" in line for line in lines)


def test_devices_without_known_peaks_have_no_times():
    text = table([row("train", flops=200)], None, None)
    assert "bound by" in text
    assert text.splitlines()[3].split("|")[-2].split() == ["-", "-", "-"]
    said = heading(Slice("this machine", (jax_device(),), None), None)
    assert "A device has memory that is not known. Its peaks are not known" in said


def test_what_goes_to_the_host_is_said_with_its_time():
    rows = [row("train", flops=200, host=6), row("decode", flops=200)]
    text = table(rows, RATES, 16 * GIB)
    said = "to and from the host 6 GiB, 6,000 ms at the peak of that link"
    assert said in " ".join(text.split())
    assert text.count("to and from the host") == 1
    (line,) = [line for line in text.splitlines() if line.startswith("train")]
    assert line.endswith("| host")
    assert "to and from the host 6 GiB" in table(rows, None, None)


def jax_device():
    import jax

    return jax.devices()[0]


def test_the_heading_says_what_a_device_is():
    said = heading(Slice("tpu7x:2x2x1", (None,) * 8, chip_named("tpu7x")), RATES)
    assert "4 tpu7x chips, two devices each" in said


def test_the_lines_of_a_run():
    steps = (Step("base", 20, {"sample": 6.0, "train": 4.0}, 20_000), Step("rl", 80, {"sample": 10.0}, 50_000))
    run = Run(steps, (5, 20.0), (10, 3.0), chips=32)
    assert run.hours == (20 * 10 + 80 * 10 + 100 + 30) / 3600
    text = "\n".join(run_lines(run, Lengths(512, 3000)))
    assert "a step of base: 10 s (sample 6, train 4), 2,000 tokens/s" in text
    assert "100 steps, 5 evaluations of 20 s, 10 alignments of 3 s: 0.314 hours on 32 chips, 10.04 chip hours" in text
    assert "prompts of 512 tokens (--mean-prompt) and responses of 3000" in text.replace("\n  ", " ")
    assert "alignments" not in "\n".join(run_lines(dataclasses.replace(run, alignments=(0, 0.0)), Lengths(1, 1)))
