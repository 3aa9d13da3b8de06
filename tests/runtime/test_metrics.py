"""Metrics files: what a line holds, and what a resume leaves of them."""

import errno
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from prerl_jax.runtime import metrics
from prerl_jax.runtime.metrics import MetricsError, MetricsWriter, read_metrics, write_json


def events(workdir):
    """The events of all files in the order in which TensorBoard reads them."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += 16 + size
    return found


def shown(workdir):
    """(step, tag, value) as TensorBoard shows them: a START drops what it met before at its step or later."""
    seen = []
    for event in events(workdir):
        if event.session_log.status == SessionLog.START:
            seen = [entry for entry in seen if entry[0] < event.step]
        seen += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return seen


def run(workdir, steps, resume_step=None):
    writer = MetricsWriter(workdir, resume_step=resume_step)
    for step in steps:
        writer.write(step, "rl", {"train/reward": step / 10})
        writer.completions(step, [{"text": f"a{step}"}, {"text": f"b{step}"}])
    writer.close()


def steps_of(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_line_holds_step_phase_and_plain_numbers(tmp_path):
    writer = MetricsWriter(tmp_path)
    values = {"train/reward": np.float32(0.5), "n": np.int32(3), "bad": float("nan"), "worse": -np.inf}
    writer.write(np.int32(7), "nsr", values)
    writer.flush()
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 7, "phase": "nsr", "train/reward": 0.5, "n": 3, "bad": null, "worse": null}\n'
    )
    assert read_metrics(tmp_path) == [
        {"step": 7, "phase": "nsr", "train/reward": 0.5, "n": 3, "bad": None, "worse": None}
    ]
    board = {tag: value for _, tag, value in shown(tmp_path)}
    assert board["n"] == 3
    assert np.isnan(board["bad"])
    writer.completions(7, [{"text": "über ¬", "reward": np.float32(1)}])
    writer.close()
    writer.close()
    assert json.loads((tmp_path / "completions.jsonl").read_text()) == {"step": 7, "text": "über ¬", "reward": 1.0}


def test_resume_cuts_what_is_later_and_a_half_written_line(tmp_path):
    run(tmp_path, [0, 1, 2, 3])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "pha')
    run(tmp_path, [2, 3, 4], resume_step=1)
    assert [record["step"] for record in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    assert steps_of(tmp_path / "completions.jsonl") == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [step for step, _, _ in shown(tmp_path)] == [0, 1, 2, 3, 4]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_new_run_starts_empty(tmp_path):
    run(tmp_path, [0, 1, 2])
    run(tmp_path, [0, 1])
    assert steps_of(tmp_path / "metrics.jsonl") == [0, 1]
    assert [step for step, _, _ in shown(tmp_path)] == [0, 1]


def test_reading_a_running_or_missing_file(tmp_path):
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "phase": "a"}\n{"step": 2, "phase": "\xc3')
    assert read_metrics(tmp_path) == [{"step": 1, "phase": "a"}]


def test_a_killed_cut_leaves_the_old_file(tmp_path, monkeypatch):
    run(tmp_path, [0, 1, 2])
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(MetricsError, match=r"metrics\.jsonl: No space left"):
        MetricsWriter(tmp_path, resume_step=0)
    assert steps_of(tmp_path / "metrics.jsonl") == [0, 1, 2]


def test_disabled_touches_nothing(tmp_path):
    writer = MetricsWriter(tmp_path / "w", enabled=False)
    writer.write(1, "rl", {"a": 1.0})
    writer.completions(1, [{}])
    writer.flush()
    writer.close()
    assert not (tmp_path / "w").exists()


def test_errors_name_the_file_and_the_reason(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="gs://bucket/run"):
        MetricsWriter("gs://bucket/run")
    (tmp_path / "file").write_text("")
    with pytest.raises(MetricsError, match="file"):
        MetricsWriter(tmp_path / "file")
    writer = MetricsWriter(tmp_path)
    with pytest.raises(ValueError, match="'phase'"):
        writer.write(1, "rl", {"phase": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(metrics.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(MetricsError, match=r"metrics\.jsonl: Input/output error"):
            writer.flush()
    writer.close()


def test_write_json_is_atomic_and_valid(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_json(path, [{"at": "base", "step": np.int64(0), "eval/avg@8": float("inf"), "x": (1, np.ones(2))}])
    assert json.loads(path.read_text()) == [{"at": "base", "step": 0, "eval/avg@8": None, "x": [1, [1.0, 1.0]]}]
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system")))
    with pytest.raises(MetricsError, match=r"summary\.json: Read-only"):
        write_json(path, [])
    assert json.loads(path.read_text())[0]["at"] == "base"


def test_torch_is_never_imported(tmp_path):
    code = f"import sys; from prerl_jax.runtime.metrics import MetricsWriter; MetricsWriter({str(tmp_path)!r}).close()"
    subprocess.run([sys.executable, "-c", code + "; assert 'torch' not in sys.modules"], check=True, timeout=60)
