"""What the benchmark says a process used is what the process itself says."""

import subprocess
import sys

import pytest

from tests.benchmarks import metering

BUSY = """
import resource, subprocess, sys, threading, time

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

print("ready", flush=True)
sys.stdin.readline()
begun_at = time.process_time()
burn(0.02)
thread = threading.Thread(target=burn, args=(0.02,))
thread.start()
thread.join()
if "child" in sys.argv:
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 1: pass"])
print(time.process_time() - begun_at, resource.getrusage(resource.RUSAGE_CHILDREN)[0:2], sep=";", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("words", [[], ["child"]], ids=["its threads", "a child that has ended, too"])
def test_the_processor_time_of_a_busy_process_is_what_it_says_itself(guard, words):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    guard.watch(process)
    assert process.stdout.readline() == "ready\n"
    before = metering.cpu_of([process.pid])

    process.stdin.write("go\n")
    process.stdin.flush()
    own, _, children = process.stdout.readline().partition(";")
    found = metering.cpu_of([process.pid]) - before

    said = float(own) + sum(map(float, children.strip(" ()\n").split(",")))
    assert found == pytest.approx(said, rel=0.05)
    process.communicate("end\n")
    guard.forget(process)
