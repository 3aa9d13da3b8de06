"""The command line: an error that the user can fix is one clear line with exit status 1, and writes no file."""

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import tiny_run

import prerl_jax
from prerl_jax import launch


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """Nothing of a test is kept in the user's cache of programs."""
    monkeypatch.setattr("prerl_jax.runtime.compilation.enable_cache", lambda: None)


BASE = Path(prerl_jax.__file__).parent / "lab_base"
SECTIONS = ["--config", tiny_run.COMMAND[-1], "--set", "mesh.tensor=2"]  # 8 devices: 4 parts of the batch


def refused(tmp_path, capsys, *arguments):
    """The error line of a command that fails, after checking that it is one and that nothing was written."""
    workdir = tmp_path / "workdir"
    assert launch.main([*SECTIONS, "--workdir", str(workdir), *arguments]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert "Traceback" not in out + err
    assert not workdir.exists()
    return err


def jsonl(path, count=8, prompt="12+34="):
    path.write_text("".join(json.dumps({"prompt": prompt, "answer": "46"}) + "\n" for _ in range(count)))
    return path


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.path=/no/such/model", ["/no/such/model"]),
        (
            "data.verifier=MultipleChoice()",
            ["data.train: MultipleChoice", "any of the 64", "one letter of 'ABCDEFGHIJ'"],
        ),
        ("model.path=package:prerl_jax/nothing", ["prerl_jax/nothing"]),
        ("data.template=ChatTemplate()", ["no chat template", "PlainText()"]),
        ("data.max_prompt_tokens=2", ["64 prompts are longer than max_prompt_tokens=2", "truncate_left"]),
        ("sampling.group_size=1", ["group_size is 1", "2 or more"]),
        ("sampling.prompts_per_step=6", ["6 groups do not divide over the 4 shards of the mesh"]),
        ("microbatches=3", ["16 rows do not divide into microbatches = 3"]),
        ("sampling.engine.slots=0", ["slots must be at least 1, got 0"]),
        ("sampling.prompts_per_step=128", ["sampling.prompts_per_step is 128", "64 usable problems"]),
        ("alignment.prompts=8", ["alignment.prompts is 8", "sampling.prompts_per_step = 4"]),
        ("mesh.data=16", ["needs 32 devices, there are 8"]),
        ("mesh.tensor=3", ["3 does not divide the 8 devices"]),
        ("sampling.promts=4", ["no field 'promts'", "prompts_per_step, group_size, max_new_tokens"]),
        ("sampling.prompts_per_step=many", ["sampling.prompts_per_step=many", "expected int"]),
        ("sampling.prompts_per_step=4.5", ["expected int", "4.5"]),
        ("phases.7.steps=4", ["phases is a tuple of 2"]),
        ("sampling.max_new_tokens=4096", ["data.max_prompt_tokens + sampling.max_new_tokens = 4104", "context"]),
        ("checkpoints.best=eval/avg@8", ["never measured with evaluation.samples = 2"]),
        ("microbatches", ["write it as path=value"]),
        ('data.train=ParquetProblems(path="/no/such.parquet")', ["/no/such.parquet"]),
    ],
)
def test_an_override_that_does_not_fit(tmp_path, capsys, override, parts):
    error = refused(tmp_path, capsys, "--set", override)
    for part in parts:
        assert part in error


def test_a_machine_that_cannot_isolate_programs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    path = tmp_path / "code.jsonl"
    row = {"prompt": "1+1=", "answer": "f", "tests": [{"stdin": "", "stdout": "2"}]}
    path.write_text((json.dumps(row) + "\n") * 8)
    settings = [f'data.train=JsonlProblems(path="{path}")', "data.verifier=CodeTests(Sandbox(processes=7))"]
    error = refused(tmp_path, capsys, "--set", settings[0], "--set", settings[1])
    assert "data.train: this machine cannot isolate programs: its processor is s390x" in error


def test_a_config_that_is_not_there(tmp_path, capsys):
    error = refused(tmp_path, capsys, "--config", "labb")
    assert "labb" in error
    assert "lab, " in error
    assert "smollm2_135m" in error


def test_a_parquet_file_without_the_columns(tmp_path, capsys):
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["1+1="], "answer": ["2"]}), path)
    error = refused(tmp_path, capsys, "--set", f'data.train=ParquetProblems(path="{path}")')
    assert "lacks the columns ['prompt', 'reward_model.ground_truth']" in error
    assert "['answer', 'question']" in error


@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_an_empty_data_set(tmp_path, capsys, split):
    path = jsonl(tmp_path / "empty.jsonl", count=0)
    error = refused(tmp_path, capsys, "--set", f'data.{split}=JsonlProblems(path="{path}")')
    assert f"{path} is empty, it has no valid problem" in error


def test_fewer_problems_than_prompts(tmp_path, capsys):
    path = jsonl(tmp_path / "few.jsonl", count=3)
    assert "3 usable problems" in refused(tmp_path, capsys, "--set", f'data.train=JsonlProblems(path="{path}")')


def test_a_model_of_an_unknown_architecture(tmp_path, capsys):
    folder = shutil.copytree(BASE, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "mamba"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "mamba" in refused(tmp_path, capsys, "--set", f"model.path={folder}")


def test_a_model_without_a_stop_token(tmp_path, capsys):
    folder = shutil.copytree(BASE, tmp_path / "model")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        values = {key: value for key, value in values.items() if not key.startswith("eos_token")}
        (folder / name).write_text(json.dumps(values))
    assert "sampling.stop_tokens" in refused(tmp_path, capsys, "--set", f"model.path={folder}")


def test_a_model_without_weights(tmp_path, capsys):
    folder = shutil.copytree(BASE, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    workdir = tmp_path / "workdir"
    assert launch.main([*SECTIONS, "--workdir", str(workdir), "--set", f"model.path={folder}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(folder) in error
    assert not (workdir / "metrics.jsonl").exists()


def test_a_config_with_a_function_that_no_other_process_could_import(tmp_path, capsys):
    path = tmp_path / "own.py"
    path.write_text(
        "import dataclasses, tiny_run\n"
        "def config():\n"
        "    c = tiny_run.config()\n"
        "    optimizer = dataclasses.replace(c.optimizer, learning_rate=lambda step: 1e-4)\n"
        "    return dataclasses.replace(c, optimizer=optimizer)\n"
    )
    error = refused(tmp_path, capsys, "--config", str(path))
    assert "optimizer.learning_rate" in error


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    """A RuntimeError that is none of start-up's is not the user's to mend."""

    def fail(path):
        raise RuntimeError("a bug")

    monkeypatch.setattr(launch, "config_of", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        launch.main([])


def test_a_workdir_that_is_a_file(tmp_path, capsys):
    (tmp_path / "workdir").write_text("")
    assert launch.main([*SECTIONS, "--workdir", str(tmp_path / "workdir")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_start_up_that_only_has_a_part_of_its_variables(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    assert "JAX_COORDINATOR_ADDRESS" in refused(tmp_path, capsys)


def test_processes_that_do_not_come_together(tmp_path, capsys, monkeypatch):
    def fail(**_):
        raise RuntimeError("barrier timed out")

    monkeypatch.setattr("jax.distributed.initialize", fail)
    for name, value in (("COORDINATOR_ADDRESS", "127.0.0.1:1"), ("NUM_PROCESSES", "2"), ("PROCESS_ID", "1")):
        monkeypatch.setenv(f"JAX_{name}", value)
    workdir = tmp_path / "workdir"
    assert launch.main([*SECTIONS, "--workdir", str(workdir)]) == 1
    assert "error: distributed start-up failed" in capsys.readouterr().err
    assert not workdir.exists()
