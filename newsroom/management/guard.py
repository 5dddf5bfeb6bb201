"""Ends processes whose starter is gone: a killed demo or test run leaves nothing behind.

It runs as a process of its own and reads lines from a pipe only the starter holds open: `group <id> <signal>` entrusts
a process group to it, with the signal that asks it to end; `forget <id>` takes it back; `folder <path>` names a folder
to remove at the end. When the pipe closes, for whatever reason, it ends what it was entrusted with.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

PATIENCE = 10.0  # seconds between asking a group to end and killing it


class Guard:
    """The starter's end of the pipe."""

    def __init__(self) -> None:
        self._watched: list[subprocess.Popen[bytes]] = []
        # In a session of its own, else Ctrl-C in the terminal would end the guard first.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def watch(self, process: subprocess.Popen[bytes], *, end_with: signal.Signals = signal.SIGTERM) -> None:
        """Entrust a process started with `start_new_session=True`, and all it starts."""
        self._watched.append(process)
        self._say(f"group {process.pid} {end_with:d}")

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        self._watched.remove(process)
        self._say(f"forget {process.pid}")

    def remove_at_end(self, folder: Path) -> None:
        self._say(f"folder {folder}")

    def close(self) -> None:
        """End everything entrusted, and wait until that is done."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        while self._process.poll() is None:
            for process in self._watched:
                process.poll()  # one that has ended stays in its group until its parent has looked
            time.sleep(0.02)

    def _say(self, line: str) -> None:
        self._pipe.write(f"{line}\n")
        self._pipe.flush()

    @property
    def _pipe(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin


def end_groups(groups: Mapping[int, int], *, patience: float = PATIENCE) -> None:
    """Ask the leader of each group to end by the group's signal, and kill what has not ended in time."""
    left = {group for group, number in groups.items() if _ask_to_end(group, number)}
    deadline = time.monotonic() + patience
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {group for group in left if _signal(group, 0)}
    for group in left:
        _signal(group, signal.SIGKILL)


def _ask_to_end(group: int, number: int) -> bool:
    # The leader lets those it started finish what they are at; only when it is gone they are asked themselves.
    try:
        os.kill(group, number)
    except ProcessLookupError:
        return _signal(group, signal.SIGTERM)
    return True


def _signal(group: int, number: int) -> bool:
    """Signal a group; say whether there is still anyone in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS answers PermissionError for a group of zombies
        return False
    return True


def main() -> None:
    # Only the pipe decides when the guard ends; whoever signals everything in sight still gets a clean end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, int] = {}
    folders: set[str] = set()
    for line in sys.stdin:
        word, _, value = line.rstrip("\n").partition(" ")
        if word == "group":
            group, _, number_to_end = value.partition(" ")
            groups[int(group)] = int(number_to_end)
        elif word == "forget":
            groups.pop(int(value), None)
        elif word == "folder":
            folders.add(value)
    end_groups(groups)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
