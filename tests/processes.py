"""Several processes of one program: what they say, or why one of them failed."""

import subprocess
import tempfile
import time


def finish(commands, timeout):
    """Runs (arguments, environment) pairs at once, to their end: their (stdout, stderr).

    When one fails, the others wait for it in vain: they are killed, and AssertionError has the first failure's stderr.
    """
    files = [(_file(), _file()) for _ in commands]
    processes = [
        subprocess.Popen(arguments, env=environment, stdout=out, stderr=error, text=True)
        for (arguments, environment), (out, error) in zip(commands, files, strict=True)
    ]
    deadline, failed = time.monotonic() + timeout, []
    try:
        while not failed and any(process.poll() is None for process in processes):
            assert time.monotonic() < deadline, f"after {timeout} s: {[_said(e)[-3000:] for _, e in files]}"
            time.sleep(0.05)
            failed = [index for index, process in enumerate(processes) if process.poll()]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not failed, f"process {failed[0]} failed:\n{_said(files[failed[0]][1])[-6000:]}"
    return [(_said(out), _said(error)) for out, error in files]


def _file():
    return tempfile.TemporaryFile("w+")


def _said(file):
    file.seek(0)
    return file.read()
