"""Programs that try to see, to keep, to break or to fake something, in the sandbox."""

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import CodeTests, Sandbox
from prerl_jax.verify.sandbox import Run
from prerl_jax.verify.sandbox_inside import ARCHITECTURES, REFUSED

SECRET = "the-secret-42"
PROBLEM = Problem(
    "q",
    "tests",
    metadata={"tests": [{"call": "f", "args": [1], "expected": SECRET}, {"stdin": "1", "stdout": SECRET}]},
)


@pytest.fixture
def sandbox(isolation):
    return Sandbox(wall=60.0)


def report(sandbox, program):
    """The value that a program prints as JSON."""
    run = sandbox.run("import json, os, sys\n" + program)
    assert (run.end, run.status) == ("exit", 0), run
    return json.loads(run.output)


def verdict(sandbox, program):
    judgement = CodeTests(sandbox, partial=True)(PROBLEM, f"```python\n{program}\n```")
    return judgement.reward, judgement.verdict


LOOK_AROUND = """
import ctypes, resource, signal, socket, threading
libc = ctypes.CDLL(None, use_errno=True)

def error_of(act, *args):
    try:
        return f"no error: {act(*args)}"
    except Exception as error:
        return type(error).__name__

def refused(result):
    return result == -1

def not_permitted(number):
    return refused(libc.syscall(number, 0, 0, 0, 0, 0)) and ctypes.get_errno() == 1

def open_descriptors():
    return [n for n in range(1000) if error_of(os.fstat, n) != "OSError"]

def can_write(folder):
    return error_of(open, os.path.join(folder, "x"), "w") not in ("OSError", "PermissionError")

def started_threads():
    stop = threading.Event()
    try:
        for n in range(100):
            threading.Thread(target=stop.wait).start()
    except RuntimeError:
        return n
    finally:
        stop.set()

error_of(os.kill, 1, 9)  # the whole box would end with process 1
print(json.dumps({
    "root": sorted(os.listdir("/")),
    "dev": sorted(os.listdir("/dev")),
    "work": os.listdir("."),
    "environment": [name for name in os.environ if name != "LC_CTYPE"],
    "descriptors": open_descriptors(),
    "root user": os.getuid() == 0 or error_of(os.setuid, 0).startswith("no error"),
    "errors": os.path.samestat(os.fstat(2), os.stat("/dev/null")),
    "threads": started_threads(),
    "no new privileges": libc.prctl(39, 0, 0, 0, 0),
    "sockets": [error_of(socket.socket, family) for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 40)],
    "new user namespace": refused(libc.unshare(0x10000000)),
    "mounts": refused(libc.mount(b"none", b"/work", b"tmpfs", 0, None)),
    "refused": [name for name, number in CALLS.items() if not_permitted(number)],
    "ignored children": error_of(signal.signal, signal.SIGCHLD, signal.SIG_IGN),
    "queues": refused(libc.mq_open(b"/queue", 0o102, 0o600, None)),
    "memory files": error_of(os.memfd_create, "x"),
    "shared memory": refused(libc.shmget(0, 4096, 0o600)),
    "writable": [folder for folder in ("/", "/work", "/lib", sys.prefix + "/lib", "/dev") if can_write(folder)],
    "raised": error_of(resource.setrlimit, resource.RLIMIT_AS, (2**40, 2**40)),
    "here": os.getpid() < 100,
    "exists": [path for path in PATHS if os.path.exists(path)],
}))
"""


def test_a_program_sees_nothing_and_has_no_privileges(sandbox, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (tmp_path / "checkpoint").write_text(SECRET)
    hidden = [str(tmp_path / "checkpoint"), __file__, str(Path.home() / ".bashrc"), "/etc/passwd", "/proc/self", "/sys"]
    machine = list(ARCHITECTURES).index(platform.machine())
    calls = {name: numbers[machine] for name, numbers in REFUSED.items()}
    kept = os.open(tmp_path / "checkpoint", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        seen = report(sandbox, f"PATHS, CALLS = {hidden}, {calls}\n{LOOK_AROUND}")
    finally:
        os.close(kept)
    assert set(seen.pop("root")) <= {"dev", "etc", "lib", "lib64", "usr", "work", *Path(sys.base_prefix).parts[1:2]}
    assert seen == {
        "dev": ["null", "urandom"],
        "work": [],
        "environment": [],
        "descriptors": [0, 1, 2],
        "errors": True,
        "threads": sandbox.processes - 1,
        "no new privileges": 1,
        "root user": False,
        "sockets": ["PermissionError"] * 4,
        "new user namespace": True,
        "mounts": True,
        "refused": list(calls),
        "ignored children": "PermissionError",
        "queues": True,
        "memory files": "PermissionError",
        "shared memory": True,
        "writable": ["/work"],
        "raised": "ValueError",
        "here": True,
        "exists": [],
    }


FAKES = {
    "leaves with status 0": "import os; os._exit(0)",
    "prints PASS": "print('PASS'); print(True); print(1.0)",
    "is equal to everything": """
class Any(str):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def f(x): return Any()
""",
    "patches what compares": """
import builtins, json, sys
builtins.all = builtins.any = lambda *a: True
json.dumps = json.loads = lambda *a, **k: 'true'
sys.stdout.write = lambda text: None
def f(x): return 1
""",
    "looks for the result": """
import gc, sys
texts = [o for o in gc.get_objects() if isinstance(o, (str, bytes, dict, list, tuple))]
frame = sys._getframe()
while frame:
    texts += [*frame.f_locals.values(), *frame.f_globals.values()]
    frame = frame.f_back
found = next((t for t in map(repr, texts) if 'the-' + 'secret' in t), 'nothing')
def f(x): return found
print(found)
""",
    "pickles a bomb": """
import os
class Bomb:
    def __reduce__(self): return os.system, ('echo',)
def f(x): return Bomb()
import pickle, sys
sys.stdout.buffer.write(pickle.dumps(Bomb()))
""",
    "writes replies of its own": """
import os
for n in range(3, 32):
    try: os.write(n, b'true\\n' * 10)
    except OSError: pass
def f(x): return True
""",
    "answers with no JSON": "def f(x): return float('nan')\nprint('NaN')",
    "answers with depth": """
import sys
sys.setrecursionlimit(10**9)
import json
json.dumps = lambda value, **k: '[' * 10**5
def f(x): return 1
print('[' * 10**5)
""",
    "answers with a surrogate": "def f(x): return '\\ud800'\nimport sys; sys.stdout.buffer.write(b'\\xed\\xa0\\x80')",
    "is no Python": "def f(x:",
    "crashes": "import ctypes; ctypes.string_at(0)",
}
QUICK = ("leaves with status 0", "prints PASS", "is equal to everything", "patches what compares")


@pytest.mark.parametrize(
    "program",
    [pytest.param(text, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, text in FAKES.items()],
)
def test_a_fake_earns_nothing(sandbox, program):
    assert verdict(sandbox, program) == (0.0, "wrong")


@pytest.mark.parametrize(
    ("end", "reward"),
    [
        ("", 0.5),
        ("raise KeyError", 0.0),
        pytest.param("import os; os.kill(os.getpid(), 9); os.abort()", 0.0, marks=pytest.mark.slow),
        pytest.param("import os, sys; sys.stdout.flush(); os.kill(-1, 9)", 0.0, marks=pytest.mark.slow),
    ],
)
def test_it_must_end_well_even_if_its_output_is_right(sandbox, end, reward):
    assert verdict(sandbox, f"print({SECRET!r})\n{end}") == (reward, "wrong")


def test_the_limit_of_output(sandbox):
    flood = sandbox.run("while True: print('x' * 1000)")
    assert (flood.end, flood.status) == ("output", None)
    assert len(flood.output) < 2**21


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu", 0),
        ("cpu", 1.5),
        ("processes", True),
        ("disk", 0),
        ("output", -1),
        ("wall", 7.9),
        ("wall", float("inf")),
        ("memory", 0.0),
        ("memory", float("nan")),
        ("isolation", "docker"),
    ],
)
def test_a_limit_out_of_range_is_refused(field, value):
    with pytest.raises(ValueError, match=f"Sandbox.{field}"):
        Sandbox(**{field: value})


def processes_of(text):
    """The processes on this machine whose command line has this text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found += [path] if text.encode() in path.read_bytes() else []
    return found


def gone(text, seconds=20):
    """Whether no process with this text is left, soon."""
    deadline = time.monotonic() + seconds
    while processes_of(text) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes_of(text)


THREAD = "import threading, time\nstart = lambda: threading.Thread(target=time.sleep, args=(99,)).start()\n"
DEAF = """
import signal
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
"""
BOMBS = {
    "memory": "x = []\nwhile True: x.append(bytearray(10**7))",
    "one large block": "x = b'x' * 10**11",
    "one large file": "f = open('x', 'wb')\nwhile True: f.write(b'x' * 10**6)",
    "many large files": "for n in range(10**6): open(str(n), 'wb').write(b'x' * 10**6)",
    "many empty files": "for n in range(10**6): open(str(n), 'wb').close()",
    "many folders": "import os\nwhile True: os.mkdir('d'); os.chdir('d')",
    "open files": "import tempfile\nx = [tempfile.TemporaryFile() for _ in range(10**6)]",
    "an endless loop": "while True: pass",
    "C code": "import re; re.match('(a*)*b', 'a' * 64)",
    "a large power": "x = 10 ** 10 ** 10",
    "recursion": "import sys; sys.setrecursionlimit(10**9)\nf = lambda: f()\nf()",
    "nested source": "exec('(' * 10**6)",
    "a flood of errors": "import sys\nwhile True: sys.stderr.write('x' * 10**6)",
    "a deaf loop": DEAF,
}
SLEEPERS = {
    "processes": "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(99)",
    "one process": "import time; time.sleep(99)",
    "a thread": THREAD + "start()",
    "threads": THREAD + "while True:\n    try: start()\n    except RuntimeError: time.sleep(99)",
    "a closed output": "import os, time\nos.close(1); time.sleep(99)",
}


@pytest.mark.slow
@pytest.mark.parametrize("program", BOMBS.values(), ids=BOMBS)
def test_a_bomb_ends_by_a_limit(isolation, program):
    run = Sandbox(cpu=1, wall=60.0, memory=0.5).run(program)
    assert run.end == "exit"
    assert run.status != 0


@pytest.mark.slow
@pytest.mark.parametrize("program", SLEEPERS.values(), ids=SLEEPERS)
def test_what_sleeps_is_killed(isolation, program):
    assert Sandbox(cpu=1, wall=5.0).run(program).end == "deadline"


@pytest.mark.slow
def test_a_program_cannot_keep_itself_from_the_processor(isolation):
    """Of 31 processes on one core, the program itself gets so little that a busy machine would explain it."""
    crowd = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    crowd += "for n in range(30):\n    if os.fork() == 0: break\nwhile True: pass"
    assert Sandbox(cpu=2, wall=6.0, processes=31).run(crowd).end == "deadline"


@pytest.mark.slow
def test_output_at_exit_is_limited_too(isolation):
    program = "import atexit\n@atexit.register\ndef more():\n    while True: print('x' * 999)"
    assert Sandbox(wall=60.0).run(program).end == "output"


@pytest.mark.slow
def test_children_do_not_outlive_it(sandbox):
    """A child in a session of its own, which has closed all files, with the signal of its parent's death cleared."""
    leave = """
import ctypes, os, time
ctypes.CDLL(None).prctl(1, 0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 99)
        time.sleep(600)
    os._exit(0)
"""
    assert report(sandbox, leave + "print(1)") == 1
    assert Sandbox(cpu=1, wall=4.0).run(leave + "time.sleep(600)").end == "deadline"
    assert gone("STARTED =")


@pytest.mark.slow
def test_a_killed_parent_takes_its_program_with_it(sandbox):
    code = "from prerl_jax.verify import Sandbox; Sandbox(cpu=300, wall=600.0).run('import time; time.sleep(599)')"
    parent = subprocess.Popen([sys.executable, "-c", code])
    while not processes_of("STARTED ="):
        time.sleep(0.05)
    time.sleep(1.0)
    assert processes_of("STARTED =")
    parent.kill()
    parent.wait()
    assert gone("STARTED =")


@pytest.mark.slow
def test_no_program_reaches_a_server_or_a_file_of_this_machine(sandbox, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 1)
    print(json.dumps("connected"))
except OSError:
    print(json.dumps("refused"))
"""
        assert report(sandbox, program) == "refused"
    (tmp_path / "x").write_text(SECRET)
    links = f"""
found = []
for target in ({str(tmp_path / "x")!r}, "/proc/1/root", "/proc/self/root", "../" * 50 + {str(tmp_path)!r}, "/old"):
    os.symlink(target, "link")
    try:
        found.append(os.listdir("link") if os.path.isdir("link") else open("link").read())
    except OSError:
        pass
    os.unlink("link")
print(json.dumps(found))
"""
    assert report(sandbox, links) == []


@pytest.mark.slow
def test_runs_share_nothing(sandbox):
    assert report(sandbox, "open('kept', 'w').close(); print(1)") == 1
    assert report(sandbox, "print(json.dumps(os.listdir('.')))") == []


@pytest.mark.slow
def test_a_program_may_use_threads_processes_and_files(sandbox):
    program = """
import asyncio, subprocess, sys, threading
threading.stack_size(2**26)
sys.setrecursionlimit(10**5)
depth = lambda n: 0 if n == 0 else 1 + depth(n - 1)
results = []
thread = threading.Thread(target=lambda: results.append(depth(50_000)))
thread.start(); thread.join()
open("x", "w").write("kept")
results.append(open("x").read())
results.append(subprocess.run([sys.executable, "-I", "-c", "print(7)"], capture_output=True, text=True).stdout)
results.append(asyncio.run(asyncio.sleep(0, "async")))
print(json.dumps(results))
"""
    assert report(sandbox, program) == [50_000, "kept", "7\n", "async"]


def test_a_run_is_data(sandbox):
    assert sandbox.run("print(input())", "ä\nb") == Run("ä\n".encode(), "exit", 0)
    assert sandbox.run("import sys; sys.exit(3)").status == 3
