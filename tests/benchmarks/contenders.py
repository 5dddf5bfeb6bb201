"""Who is measured: the site's own delivery over three transports, what one would use otherwise, and the ceiling."""

import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from tests.benchmarks.drivers import protocol
from tests.benchmarks.metering import Cost, Meter
from tests.benchmarks.scene import Scene, read_line
from tests.processes import ROOT, Processes

OTHERS = ["django-newsletter==1.2.1", "django-post-office==3.12.0", "sorl-thumbnail==13.0.0", "psycopg[binary]>=3.3"]
ENVIRONMENT_OF_OTHERS = ROOT / "var" / "bench" / "env"

SENDERS = 2  # processes
PROBES = 5
# Whoever goes one by one sends to one reader in so many, and to so many at least: his price is each reader's alone.
SMALL_PART, LEAST = 20, 6000
OWNERS = "SELECT DISTINCT owner FROM digests_deliverybatch WHERE owner <> ''"


class Failed(Exception):
    """A run that is no result: somebody got no mail, or two, or it did not come to its end."""


class Contender(NamedTuple):
    send: Callable[[Scene], Cost]
    sink: str
    is_one_by_one: bool = False  # mail by mail or call by call; else it hands over thousands a second

    def share_of(self, readers: int) -> int:
        """Return to how many of a digest's readers it sends, so that it runs long enough and no longer."""
        return min(readers, max(readers // SMALL_PART, LEAST)) if self.is_one_by_one else readers


def run(name: str, scene: Scene) -> Cost:
    """Send one digest to all readers by one contender's way, and return what it cost; each got one mail exactly."""
    contender = CONTENDERS[name]
    receiver = scene.receiver = scene.sinks[contender.sink]
    receiver.reset()
    cost = contender.send(scene)
    time.sleep(0.3)  # one who is mailed twice may be so only now
    refuse_wrong(receiver.check(scene.readers_file))
    return cost


def refuse_wrong(found: dict[str, int]) -> None:
    if wrong := {word: number for word, number in found.items() if number and word != "bytes"}:
        raise Failed(", ".join(f"{number} {word}" for word, number in wrong.items()))


def by_site(
    scene: Scene,
    *,
    transport: Callable[[Scene], dict[str, str]],
    beside: Callable[[Scene, Processes], AbstractContextManager[object]] = lambda scene, site: nullcontext(),
) -> Cost:
    """Two sending worker processes, one worker for everything else, and beat, as README says for production.

    What goes on `beside` begins before the digest does and ends with it.
    """
    from digests import release
    from digests.clock import database_now
    from digests.tasks import tell_workers
    from newsroom.celery import app

    app.set_current()
    digest, probes = scene.make_digest(), (scene.make_probe() for _ in range(PROBES))
    folder = scene.folder / f"run-{digest.pk}"
    folder.mkdir()
    site = Processes(guard=scene.guard, folder=folder, broker_url=scene.broker_url)
    site.env = scene.environment(transport(scene))
    try:
        senders = site.worker("send", queues="send", concurrency=SENDERS, waits=False)
        others = site.worker("others", queues="fast,fetch,default")
        site.wait_until(lambda: site.log("send").count(" ready."), process=senders)
        beat = site.beat()
        site.wait_until(lambda: list(folder.glob("beat.schedule*")), process=beat)  # it has loaded all it needs
        _warm_up(scene, probes, processes=[senders, others, beat])
        with beside(scene, site):
            meter = _meter(scene, [senders.pid, others.pid, beat.pid])
            own, begun_at = time.process_time(), time.monotonic()
            assert release.start_sending(digest, now=database_now())
            meter.add_freeze(time.monotonic() - begun_at)
            tell_workers(database_now())  # as the task does that starts a digest at its time
            meter.add_cpu(time.process_time() - own)
            _wait(partial(_is_finished, scene, digest.pk), scene, processes=[senders, others, beat])
            return meter.end()
    finally:
        site.end()


def _warm_up(scene: Scene, probes: Iterator[Any], *, processes: list[subprocess.Popen[bytes]]) -> None:
    """Send tiny digests until each sending process has had a part in one; those of a site run for days."""
    from django.test import override_settings

    from digests import release
    from digests.clock import database_now
    from digests.tasks import tell_workers

    owners: set[str] = set()

    def is_finished(digest_id: int) -> bool:
        owners.update(owner for (owner,) in scene.watcher.execute(OWNERS))
        return _is_finished(scene, digest_id)

    while len(owners) < SENDERS:
        if (probe := next(probes, None)) is None:
            raise Failed("a sending process stayed cold")
        with override_settings(DELIVERY_BATCH_SIZE=10):  # so that there is one for everybody
            assert release.start_sending(probe, now=database_now())
        tell_workers(database_now())
        _wait(partial(is_finished, probe.pk), scene, processes=processes, every=0.002)
    time.sleep(0.5)  # hints that were given for what is done already are taken, too


def _is_finished(scene: Scene, digest_id: int) -> bool:
    row = scene.watcher.execute("SELECT state FROM digests_digest WHERE id = %s", [digest_id]).fetchone()
    return row is not None and row[0] == "finished"


class Driver:
    """A sender of the benchmark's own, which waits for our word and says when it is done."""

    def __init__(self, scene: Scene, module: str, *, environment: dict[str, str], python: str = sys.executable) -> None:
        self._log = scene.folder / f"{module}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [python, "-m", f"tests.benchmarks.drivers.{module}"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        scene.guard.watch(self.process)  # type: ignore[arg-type,unused-ignore]
        self._guard = scene.guard
        self._wait_for("ready")

    def go(self) -> None:
        self._say("go\n")
        self._wait_for("done")

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._guard.forget(self.process)  # type: ignore[arg-type,unused-ignore]

    def _say(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words)
        self.process.stdin.flush()

    def _wait_for(self, word: str) -> None:
        while (line := read_line(self.process.stdout)) != word:
            if not line and self.process.poll() is not None:
                raise Failed(f"ended with {self.process.returncode}: {self._log.read_text()[-2000:]}")


def _by_driver(
    scene: Scene,
    *,
    module: str,
    transport: Callable[[Scene], dict[str, str]] = Scene.smtp,
    python: Callable[[], str] = lambda: sys.executable,
) -> Cost:
    scene.tidy()
    driver = Driver(scene, module, environment=scene.environment(transport(scene)), python=python())
    try:
        meter = _meter(scene, [driver.process.pid])
        driver.go()
        return meter.end()
    finally:
        driver.end()


def _by_tasks(scene: Scene) -> Cost:
    """One task per reader, two worker processes."""
    scene.tidy()
    environment = scene.environment(scene.smtp())
    folder = scene.folder / f"tasks-{time.monotonic_ns()}"
    folder.mkdir()
    processes = Processes(guard=scene.guard, folder=folder, broker_url=scene.broker_url)
    processes.env = environment
    options = ["worker", "--loglevel=INFO", "--concurrency=2"]
    try:
        worker = processes.start("tasks", "-m", "celery", "-A", "tests.benchmarks.drivers.per_reader", *options)
        processes.wait_until(lambda: " ready." in processes.log("tasks"), process=worker)
        driver = Driver(scene, "per_reader", environment=environment)
        try:
            _wait(lambda: scene.receiver.total >= min(protocol.WARM_UP, scene.count), scene, processes=[worker])
            meter = _meter(scene, [worker.pid, driver.process.pid])
            driver.go()
            _wait(lambda: scene.receiver.total >= scene.count, scene, processes=[worker])
            return meter.end()
        finally:
            driver.end()
    finally:
        processes.end()


def _meter(scene: Scene, senders: list[int]) -> Meter:
    """Begin the run; what came in so far was to warm up."""
    scene.receiver.reset()
    return Meter(senders, postgres=scene.postgres.process.pid, database=scene.watcher, receiver=scene.receiver)


def _wait(
    is_done: Callable[[], bool], scene: Scene, *, processes: list[subprocess.Popen[bytes]], every: float = 0.02
) -> None:
    deadline = time.monotonic() + 120 + scene.count / 20
    while not is_done():
        if time.monotonic() > deadline:
            raise Failed("it did not come to its end in time")
        if any(process.poll() is not None for process in processes):
            raise Failed("one of its processes has ended")
        time.sleep(every)


def python_of_others() -> str:
    """Return the Python of an environment with the other packages, made at first use."""
    python = ENVIRONMENT_OF_OTHERS / "bin" / "python"
    done = ENVIRONMENT_OF_OTHERS / "installed"
    if not done.exists() or done.read_text() != " ".join(OTHERS):
        venv.create(ENVIRONMENT_OF_OTHERS, with_pip=True, clear=True)
        import django

        command = [python, "-m", "pip", "install", "--quiet", f"Django=={django.__version__}", *OTHERS]
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        installed = subprocess.run(command, env=environment, capture_output=True, text=True)
        if installed.returncode:
            raise Failed(f"cannot be installed: {installed.stderr[-500:]}")
        done.write_text(" ".join(OTHERS))
    return str(python)


CONTENDERS = {
    "smtp": Contender(partial(by_site, transport=Scene.smtp), "smtp"),
    "mailgun": Contender(partial(by_site, transport=Scene.mailgun), "http"),
    "http-single": Contender(partial(by_site, transport=Scene.postmark), "http", is_one_by_one=True),
    "loop": Contender(partial(_by_driver, module="loop"), "smtp", is_one_by_one=True),
    "task-per-reader": Contender(_by_tasks, "smtp", is_one_by_one=True),
    "anymail-bare": Contender(partial(_by_driver, module="loop", transport=Scene.postmark), "http", is_one_by_one=True),
    "django-newsletter": Contender(
        partial(_by_driver, module="django_newsletter", python=python_of_others), "smtp", is_one_by_one=True
    ),
    "django-post-office": Contender(
        partial(_by_driver, module="django_post_office", python=python_of_others), "smtp", is_one_by_one=True
    ),
    "ceiling-smtp": Contender(partial(_by_driver, module="ceiling"), "smtp"),
}
