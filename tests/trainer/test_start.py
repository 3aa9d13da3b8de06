"""The checks before training: where the run began, whose config it is, and whether its processes agree."""

import contextlib
import dataclasses
import datetime
from concurrent.futures import Future

import chat_lab
import pytest
import tiny_run
from tiny_run import Died

from prerl_jax import ExactMatch, JsonlProblems, nsr
from prerl_jax.runtime import distributed
from prerl_jax.runtime.checkpoints import Checkpoints
from prerl_jax.trainer import start
from prerl_jax.trainer.loop import save
from prerl_jax.trainer.position import Position
from prerl_jax.trainer.start import run
from prerl_jax.verify import InProcessVerifier


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Starts a run in a workdir, but does not train; `saves` writes a checkpoint there. Returns what it printed."""

    def begin(config=None, *, saves=False, check=lambda work: None, **options):
        config, console = config or tiny_run.config(), tiny_run.quiet()

        def train(work, state):
            check(work)
            if saves:
                state = dataclasses.replace(state, step=state.step + 1, phase_step=state.phase_step + 1)
                numbers: Future[dict] = Future()
                numbers.set_result({})
                save(work, work.setup.phases[0], state, Position(1, 0, 1), numbers)
            raise Died

        monkeypatch.setattr(start, "train", train)
        with pytest.raises(Died):
            run(config, tmp_path / "workdir", console=console, **options)
        return console.file.getvalue()

    return begin


@pytest.mark.slow
def test_where_a_run_began_is_kept(begin, finished, tmp_path):
    other = str(finished.workdir)
    assert f"started from {other}@4" in begin(init_from=other)
    assert f"started from {other}@2" in begin(init_from=f"{other}@2", saves=True)
    for same in (f"{other}@2", other, None):
        printed = begin(init_from=same)
        assert f"started from {other}@2" in printed
        assert "resumed from the checkpoint at step 1" in printed
    for different in (f"{other}@4", str(tmp_path)):
        with pytest.raises(ValueError, match=rf"began from {other}@2, not from .*Leave --init-from out to resume"):
            run(tiny_run.config(), tmp_path / "workdir", init_from=different)


def test_two_runs_do_not_share_a_workdir(begin, tmp_path):
    def second(work):
        with pytest.raises(ValueError, match=rf"another run is writing into {tmp_path}/workdir\. Wait until it ends"):
            run(tiny_run.config(), tmp_path / "workdir", console=tiny_run.quiet())

    begin(check=second)
    begin()  # the one that died keeps nobody out


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "workdir").touch()
    with pytest.raises(ValueError, match=rf"cannot use {tmp_path}/workdir as a workdir: .*File exists"):
        run(tiny_run.config(), tmp_path / "workdir", console=tiny_run.quiet())


@pytest.mark.slow
def test_a_run_that_began_from_its_model_does_not_take_another_s_parameters(begin, finished, tmp_path):
    begin(init_from=str(finished.workdir))  # it left no checkpoint: this was no beginning
    assert "started from" not in begin(saves=True)
    with pytest.raises(ValueError, match="began from its model, not from"):
        run(tiny_run.config(), tmp_path / "workdir", init_from=str(finished.workdir))


def test_a_workdir_without_a_checkpoint_takes_any_config(begin, tmp_path):
    begin()
    changed = dataclasses.replace(tiny_run.config(), seed=3)
    begin(changed, saves=True)
    assert "seed=3" in (tmp_path / "workdir" / "config.py").read_text()
    with pytest.raises(ValueError, match="seed: 3 -> 0"):
        run(tiny_run.config(), tmp_path / "workdir")


def test_a_saved_config_that_python_cannot_read(begin, tmp_path):
    begin(saves=True)
    file = tmp_path / "workdir" / "config.py"
    file.write_text(file.read_text().replace("seed=", "sead="))
    with pytest.raises(ValueError, match=r"config\.py, line \d+: TypeError: .*'sead'\n.*--allow-config-change"):
        run(tiny_run.config(), tmp_path / "workdir")
    begin(allow_config_change=True)


def test_nothing_is_written_before_the_order_of_problems_is_known(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("a batch does not divide")

    monkeypatch.setattr(start, "make_batches", refuse)
    with pytest.raises(ValueError, match="does not divide"):
        run(tiny_run.config(), tmp_path, console=tiny_run.quiet())
    assert [path.name for path in tmp_path.rglob("*")] in ([], ["checkpoints"])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda text: text.replace("seed=0,", "seed=1,", 1), r"differ in their configs: .*seed=1.* on process 0"),
        (
            lambda text: text.replace("step None", "step 3"),
            r"step 3 on process 0, .*step None on 1\. .*one shared folder",
        ),
    ],
)
def test_processes_that_do_not_agree(tmp_path, monkeypatch, other, says):
    """This process is the second of two. The first has another command line, or another workdir."""
    monkeypatch.setattr(distributed, "gather_text", lambda text: [other(text), text])
    monkeypatch.setattr(start, "set_up", lambda config: pytest.fail("too late"))
    with pytest.raises(ValueError, match=says):
        run(tiny_run.config(), tmp_path / "workdir", console=tiny_run.quiet())
    assert not (tmp_path / "workdir").exists()


def test_verification_is_what_the_config_asks_for(begin, monkeypatch):
    """NSR needs to know what is right in training. An evaluation takes any rewards."""
    asked = []

    @contextlib.contextmanager
    def open_verifier(verifier, *arguments, **more):
        asked.append((verifier, *arguments, *more.values()))
        yield InProcessVerifier(verifier)

    monkeypatch.setattr("prerl_jax.trainer.verifiers.open_verifier", open_verifier)
    config, other = tiny_run.config(), ExactMatch(marker="#", ignore_case=True)
    limits = {"verify_workers": 3, "verify_timeout": 2.0, "verify_memory": 1.5, "truncated_reward": -1.0}
    data = dataclasses.replace(config.data, **limits)
    opened = (3, 2.0, True, 1.5, -1.0)
    begin(dataclasses.replace(config, data=data), check=lambda work: asked.append(work.verifiers))
    (verifier, *how), verifiers = asked
    assert (verifier, tuple(how)) == (data.verifier, opened)
    assert verifiers.training is verifiers.evaluation

    asked.clear()
    data = dataclasses.replace(data, evaluation_verifier=other)
    begin(dataclasses.replace(config, data=data, phases=nsr(steps=2)), check=lambda work: asked.append(work.verifiers))
    *calls, verifiers = asked
    assert calls == [(data.verifier, 3, 2.0, False, 1.5, -1.0), (other, *opened)]
    assert verifiers.training is not verifiers.evaluation


def test_a_run_probes_its_verifiers_before_it_begins_and_under_another_config(begin, monkeypatch):
    probed = []

    def probe(examples, split, verifier, *_):
        probed.append((len(examples), split, verifier))
        return (f"{split} was probed",)

    monkeypatch.setattr("prerl_jax.trainer.verifiers.probe", probe)
    config, other = tiny_run.config(), ExactMatch(marker="#", ignore_case=True)
    data = dataclasses.replace(config.data, evaluation_verifier=other)
    changed = dataclasses.replace(config, data=data)
    assert "evaluation was probed" in begin(config, saves=True)
    assert probed == [(64, "train", data.verifier), (4, "evaluation", data.verifier)]
    probed.clear()
    assert "was probed" not in begin(config)  # it resumes
    begin(changed, allow_config_change=True)
    assert probed == [(64, "train", data.verifier), (4, "evaluation", other)]
    probed.clear()
    begin(dataclasses.replace(changed, data=dataclasses.replace(data, probe=False)), allow_config_change=True)
    assert probed == []


@pytest.fixture
def on_day(monkeypatch):
    """Sets the date that chat templates see."""

    def on_day(day):
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2024, 7, day)

        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)

    return on_day


DATED = "{{ (date_string if date_string is defined else strftime_now('%d')) + '\n' }}" + chat_lab.TEMPLATE


def test_a_resume_on_another_day_is_refused_if_the_prompts_have_the_date(begin, on_day, tmp_path):
    config = chat_lab.of(tiny_run.config(), chat_lab.small(tmp_path / "model", DATED))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, max_prompt_tokens=16))
    on_day(26)
    begin(config, saves=True)
    assert "resumed from the checkpoint at step 1" in begin(config)
    on_day(27)
    with pytest.raises(ValueError, match=r"cannot be resumed with other prompts") as refused:
        run(config, tmp_path / "workdir", console=tiny_run.quiet())
    told = str(refused.value)
    for split, count in (("train", 64), ("evaluation", 4)):
        assert (
            f"data.{split} has other prompts than the checkpoint: {count} prompts then, {count} now; {count} of" in told
        )
    assert "The first that differs is that of problem 0:\n    then '26\\n" in told
    assert "    now  '27\\n" in told
    assert 'data.template=ChatTemplate(arguments=(("date_string", "26 Jul 2024"),))' in told
    assert "--allow-config-change" in told
    pinned = dataclasses.replace(config.data.template, arguments=(("date_string", "26"),))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, template=pinned))
    assert "other prompts" not in begin(config, allow_config_change=True)
    assert "resumed from the checkpoint at step 1" in begin(config)  # as the killed run before it


def test_a_record_of_prompts_of_another_version_is_refused(begin, tmp_path, monkeypatch):
    begin(tiny_run.config(), saves=True)
    monkeypatch.setattr("prerl_jax.trainer.beginning.PromptRecord.of", lambda saved: None)
    with pytest.raises(ValueError, match=r"data\.train may have other prompts .* another version of prerl_jax"):
        run(tiny_run.config(), tmp_path / "workdir", console=tiny_run.quiet())
    assert "data.evaluation may have other" in begin(tiny_run.config(), allow_config_change=True)


def test_other_prompts_can_be_allowed(begin, tmp_path):
    """With as many problems in the file, the run keeps its position in them; else their order begins anew."""
    file, positions = tmp_path / "problems.jsonl", []

    def problems(count, first):
        lines = [f'{{"prompt": "{first + n}+1=", "answer": "{first + n + 1}"}}\n' for n in range(count)]
        file.write_text("".join(lines))

    config = tiny_run.config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train=JsonlProblems(path=str(file))))

    def see(work):
        positions.append(work.batches.position)

    problems(8, 10)
    begin(config, saves=True, check=lambda work: next(work.batches))
    problems(8, 20)
    with pytest.raises(ValueError, match=r"data\.train has other prompts .*\n.*'<s>10\+1='\n.*'<s>20\+1='"):
        run(config, tmp_path / "workdir", console=tiny_run.quiet())
    assert "data.train has other prompts" in begin(config, allow_config_change=True, check=see)
    problems(9, 10)
    with pytest.raises(ValueError, match=r"8 prompts then, 9 now; the first 8 agree"):
        run(config, tmp_path / "workdir", console=tiny_run.quiet())
    begin(config, allow_config_change=True, check=see)
    assert positions == [1, 0]


def test_a_checkpoint_without_a_record_of_its_prompts_resumes(begin, monkeypatch):
    begin(saves=True)
    restore = Checkpoints.restore

    def older(self, abstract):
        found = restore(self, abstract)
        return dataclasses.replace(found, extra={k: v for k, v in found.extra.items() if k != "prompts"})

    monkeypatch.setattr(Checkpoints, "restore", older)
    assert "resumed from the checkpoint at step 1" in begin()


def test_processes_with_different_prompts(tmp_path, monkeypatch):
    """This process is the second of two, and the first has another date in its prompts."""
    monkeypatch.setattr(distributed, "gather_text", lambda text: [text.replace("<s>", "<s>7", 1), text])
    with pytest.raises(ValueError, match=r"differ in their prompts: <s>7.* on process 0, <s>.* on 1\. They need"):
        run(tiny_run.config(), tmp_path / "workdir", console=tiny_run.quiet())
