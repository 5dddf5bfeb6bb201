"""What a run costs: processor time of process trees, memory, statements that PostgreSQL was given."""

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

import psutil
import psycopg

SAMPLE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run. `peak_rss_mb` is that of the largest single process among the senders.

    `sink_cpu_seconds` is what the receiver used: near to `seconds`, it is the receiver that was measured.
    """

    seconds: float
    cpu_seconds: float
    db_cpu_seconds: float
    peak_rss_mb: float
    statements: int
    sink_cpu_seconds: float = 0.0
    freeze_seconds: float = 0.0
    db_bytes: int = 0  # by which tables and indexes grew
    wal_bytes: int = 0


class Receiver(Protocol):
    @property
    def cpu(self) -> float: ...


class Meter:
    """Begins where it is made; the senders run already. What is sampled is a maximum the kernel keeps."""

    def __init__(
        self,
        senders: Sequence[int],
        *,
        postgres: int,
        database: psycopg.Connection,
        receiver: Receiver | None = None,
    ) -> None:
        self._senders, self._postgres, self._database, self._receiver = senders, postgres, database, receiver
        self._peak, self._is_over = 0.0, Event()
        self._own_cpu = self._freeze_seconds = 0.0
        self._bytes = self._count_bytes()
        database.execute("SELECT pg_stat_statements_reset()")
        self._sink_cpu = receiver.cpu if receiver else 0.0
        self._cpu, self._db_cpu = cpu_of(senders), self._cpu_of_database()
        self._thread = Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._begun_at = time.monotonic()

    def add_cpu(self, seconds: float) -> None:
        """Count what this process did on the senders' behalf."""
        self._own_cpu += seconds

    def add_freeze(self, seconds: float) -> None:
        self._freeze_seconds += seconds

    def end(self) -> Cost:
        seconds = time.monotonic() - self._begun_at
        cpu, db_cpu = cpu_of(self._senders) - self._cpu, self._cpu_of_database() - self._db_cpu
        sink_cpu = self._receiver.cpu - self._sink_cpu if self._receiver else 0.0
        self._is_over.set()
        self._thread.join()
        self._look()
        row = self._database.execute("SELECT coalesce(sum(calls), 0) FROM pg_stat_statements").fetchone()
        assert row is not None
        grown = [after - before for after, before in zip(self._count_bytes(), self._bytes, strict=True)]
        return Cost(
            seconds=seconds,
            cpu_seconds=cpu + self._own_cpu,
            db_cpu_seconds=db_cpu,
            peak_rss_mb=self._peak,
            statements=int(row[0]),
            sink_cpu_seconds=sink_cpu,
            freeze_seconds=self._freeze_seconds,
            db_bytes=grown[0],
            wal_bytes=grown[1],
        )

    def _cpu_of_database(self) -> float:
        """Leave out the session in which we look on."""
        return cpu_of([self._postgres]) - _cpu_of_process(psutil.Process(self._database.info.backend_pid))

    def _count_bytes(self) -> list[int]:
        """Return how large the tables with their indexes are, and how much was ever written to the log."""
        row = self._database.execute(
            "SELECT sum(pg_total_relation_size(oid)), pg_current_wal_lsn() - '0/0'::pg_lsn FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchone()
        assert row is not None
        return [int(value) for value in row]

    def _sample(self) -> None:
        while not self._is_over.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        self._peak = max([self._peak, *(_peak_memory(process) for process in _trees(self._senders))])


def _trees(roots: Sequence[int]) -> list[psutil.Process]:
    found = []
    for root in roots:
        try:
            process = psutil.Process(root)
            found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def cpu_of(roots: Sequence[int]) -> float:
    """Return the processor time of all processes below, those included that have ended and were waited for."""
    while True:
        processes = _trees(roots)
        total = sum(map(_cpu_of_process, processes))
        if _trees(roots) == processes:  # one that ends meanwhile is missed, or counted with its parent once more
            return total


def _cpu_of_process(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        own = _cpu_clock(process.pid)
    except (OSError, psutil.NoSuchProcess):
        return 0.0
    return (times.user + times.system if own is None else own) + times.children_user + times.children_system


def _cpu_clock(pid: int) -> float | None:
    """Return what POSIX's clock of a process says, all its threads in nanoseconds; None where there is no such clock.

    /proc says it in hundredths of a second, which is coarse for one that sends ten thousand mails in half a second.
    """
    clock = ctypes.c_int()
    find = getattr(ctypes.CDLL(None), "clock_getcpuclockid", None)
    return time.clock_gettime(clock.value) if find and find(pid, ctypes.byref(clock)) == 0 else None


def _peak_memory(process: psutil.Process) -> float:
    """Return in MB the most a process ever held; where the kernel does not tell, what it holds now."""
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return float(process.memory_info().rss) / 2**20
    except (OSError, psutil.Error):
        return 0.0
