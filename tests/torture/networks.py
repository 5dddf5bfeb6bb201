"""Hosts that are none: network namespaces with a cable each to this machine, which can be pulled (`ip netns`, veth)."""

import os
import subprocess

import pytest

# Tests go side by side, in numbered processes: each has addresses of its own.
_NET = f"10.{231 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))}"
CLIENTS = f"{_NET}.0.0/16"
ADDRESS = f"{_NET}.1.1"  # where the servers listen; reached from every namespace


class Host:
    """A network namespace, named after this process so that a later run can tell a forgotten one."""

    def __init__(self, number: int) -> None:
        self.name = f"newsroom-{os.getpid()}-{number}"
        self._cable, self._plug = f"nr{os.getpid() % 10_000}a{number}", f"nr{os.getpid() % 10_000}b{number}"
        self._here, self._there = f"{_NET}.{number}.1", f"{_NET}.{number}.2"

    def build(self) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", self._plug)
        _ip("link", "set", self._plug, "netns", self.name)
        _ip("address", "add", f"{self._here}/24", "dev", self._cable)
        self.plug_in()
        inside = ("-netns", self.name)
        _ip(*inside, "address", "add", f"{self._there}/24", "dev", self._plug)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "link", "set", self._plug, "up")
        _ip(*inside, "route", "add", "default", "via", self._here)

    @property
    def prefix(self) -> list[str]:
        """Return what a command is begun with to run there."""
        return ["ip", "netns", "exec", self.name]

    def cut_off(self) -> None:
        _ip("link", "set", self._cable, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self._cable, "up")

    def remove(self) -> None:
        subprocess.run(["ip", "link", "delete", self._cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)


def build_hosts(count: int) -> list[Host]:
    """Build so many, the first one's address here being ADDRESS; skip the test where that is not allowed."""
    hosts = [Host(number) for number in range(1, count + 1)]
    try:
        for host in hosts:
            host.build()
    except (OSError, subprocess.CalledProcessError) as error:
        for host in hosts:
            host.remove()
        words = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"network namespaces need Linux, iproute2 and root: {words.strip()}")
    return hosts


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
