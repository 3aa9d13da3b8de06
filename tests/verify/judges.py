"""Verifier functions for worker processes, which import this module."""

import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from prerl_jax import Judgement

VALUES = {"nan": float("nan"), "text": "good", "list": [1.0], "two": 2.0, "infinite": float("-inf"), "nothing": None}


def judge(problem, response):
    """What the response says to do."""
    what, _, argument = response.partition(" ")
    match what:
        case "is":
            return float(argument == problem.answer)
        case "value":
            return VALUES[argument]
        case "sleep":
            Path(argument).write_text(str(os.getpid()))
            subprocess.run(["sleep", "600"])
        case "loop":  # one call into C code that holds the interpreter's lock for ages
            re.match(r"(a*)*b", "a" * 64)
        case "slow":
            time.sleep(float(argument))
            return 0.5
        case "raise":
            raise KeyError(argument)
        case "exit":
            os._exit(7)
        case "sys.exit":
            sys.exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid() if argument == "itself" else os.getppid(), signal.SIGKILL)
            time.sleep(600)
        case "allocate":
            return float(len(bytearray(10 * 2**30)) > 0)
        case "escape":  # a process in a session of its own, whose parent is gone
            if not os.fork():
                os.setsid()
                if not os.fork():
                    Path(argument).write_text(str(os.getpid()))
                    time.sleep(600)
                os._exit(0)
            while not Path(argument).exists() or not Path(argument).read_text():
                time.sleep(0.001)
            os._exit(1)
        case "fork":  # two processes return, the second one late
            if not os.fork():
                time.sleep(0.2)
            return 1.0
        case "print":
            for stream in (sys.stdout, sys.stderr):
                stream.write("x" * 20_000_000)
                stream.flush()
            return 1.0
        case "read":
            return float(os.read(0, 10) == b"")
        case "answer":
            return Judgement(1.0, "right", "9" * 5_000_000)
        case "platforms":
            return float(os.environ["JAX_PLATFORMS"] == "cpu")
    return 0.0


def judge_many(problems, responses):
    """1 for the first response of a call, unless one says what to do; 0.5 for the others."""
    for problem, response in zip(problems, responses, strict=True):
        if response != "is":
            judge(problem, response)
    return [1.0, *[0.5] * (len(responses) - 1)]


def rest(problems, responses):
    """0.5 for all."""
    return [0.5] * len(responses)


if multiprocessing.parent_process() is not None and os.environ.get("JUDGES_SLEEP"):
    Path(os.environ["JUDGES_SLEEP"]).write_text(str(os.getpid()))
    time.sleep(600)

if multiprocessing.parent_process() is not None and os.environ.get("JUDGES_FAIL"):
    raise ImportError("this module is not for workers")
