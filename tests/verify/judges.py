"""Verifier functions for worker processes, which import this module."""

import os
import re
import subprocess
import time
from pathlib import Path


def judge(problem, response):
    """What the response says to do."""
    what, _, argument = response.partition(" ")
    match what:
        case "is":
            return float(argument == problem.answer)
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
        case "platforms":
            return float(os.environ["JAX_PLATFORMS"] == "cpu")
    return 0.0
