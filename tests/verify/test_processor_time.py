"""The CPU time of a program: which processes count, and when a machine is too busy for it."""

import os
import subprocess
import sys

import pytest

from prerl_jax.verify.processor_time import starved, used_by

BURN = 0.15
FAMILY = f"""
import os, time

def burn():
    while time.process_time() < {BURN}: pass

def child(then):
    pid = os.fork()
    if pid == 0:
        burn()
        then()
        os._exit(0)
    return pid

burn()
os.waitpid(child(lambda: None), 0)
os.waitid(os.P_PID, child(lambda: None), os.WEXITED | os.WNOWAIT)
read, write = os.pipe()
child(lambda: (os.write(write, b"."), time.sleep(600)))
os.read(read, 1)
print(flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("waited", "used", "busy"), [(7.5, 0.3, True), (7.5, 8.0, False), (7.5, 1.0, False), (0.5, 0.3, False)]
)
def test_a_machine_is_busy_only_if_the_program_used_little_itself(waited, used, busy):
    assert starved(cpu=4, wall=8.0, waited=waited, used=used) is busy


@pytest.mark.skipif(not os.path.isfile(f"/proc/self/task/{os.getpid()}/children"), reason="no such /proc")
def test_living_ended_and_waited_for_children_count():
    family = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, start_new_session=True)
    try:
        family.stdout.readline()
        ticks = 8 / os.sysconf("SC_CLK_TCK")  # each of 8 numbers that are added may be rounded down
        assert used_by(family.pid) >= 4 * BURN - ticks
    finally:
        os.killpg(family.pid, 9)
        family.wait()
        family.stdout.close()
