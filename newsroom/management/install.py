"""Makes the virtual environment and installs a lock file in it, for the Makefile: `install.py requirements-demo.txt`.

A second run with an unchanged lock does nothing. What is missing on the machine is said in plain words.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

NEEDED = (3, 11)
ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
NETWORK_TROUBLE = (
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Read timed out",
    "ConnectTimeoutError",
    "NewConnectionError",
    "NameResolutionError",
    "ProxyError",
)


class TroubleError(Exception):
    """Something is missing on this machine; the message says what and how to get it."""


def main() -> None:
    try:
        install(ROOT / sys.argv[1])
    except TroubleError as trouble:
        sys.exit(f"\n{trouble}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the next run goes on from here.")


def install(lock: Path) -> None:
    fingerprint = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = ENVIRONMENT / f"installed-{lock.stem}"
    if is_working() and stamp.exists() and stamp.read_text() == fingerprint:
        return
    if not is_working():
        make_environment()
    run_pip(lock)
    stamp.write_text(fingerprint)


def is_working() -> bool:
    """Say whether the environment is there, new enough, and its Python not gone."""
    try:
        test = f"import sys; sys.exit(sys.version_info < {NEEDED})"
        has_pip = any(ENVIRONMENT.glob("lib/python*/site-packages/pip"))
        return has_pip and subprocess.run([PYTHON, "-c", test], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def make_environment() -> None:
    say(f"Making a virtual environment in .venv with Python {sys.version.split()[0]} …")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "venv", str(ENVIRONMENT)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode or not is_working():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        raise TroubleError(
            f"{sys.executable} cannot make virtual environments: its `venv` or `ensurepip` is missing.\n"
            f"On Debian and Ubuntu: apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv\n\n"
            + done.stdout.decode(errors="replace").strip()
        )


def run_pip(lock: Path) -> None:
    count = sum("==" in line for line in lock.read_text().splitlines())
    say(f"Installing {count} packages from {lock.name}, each checked against its hash …")
    options = ["--require-hashes", "--no-deps", "--disable-pip-version-check", "--no-input", "--retries=2"]
    options += ["--progress-bar=off", f"--requirement={lock}"]
    pip = subprocess.Popen(
        [str(PYTHON), "-m", "pip", "install", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, PYTHONUNBUFFERED="1"),
        text=True,
        errors="replace",
    )
    output = report(pip, count=count)
    if pip.wait():
        raise TroubleError(reason(output))


def report(pip: subprocess.Popen[str], *, count: int) -> list[str]:
    """Show how far pip is, in one line that counts on a terminal and in a line per ten packages elsewhere."""
    output: list[str] = []
    seen = 0
    assert pip.stdout is not None
    for line in pip.stdout:
        output.append(line)
        if line.startswith(("Collecting ", "Processing ", "Requirement already satisfied: ")):
            seen += 1
            if sys.stdout.isatty():
                name = line.partition(" ")[2].split("==")[0].rpartition("/")[2].split()[0]
                print(f"\r  {seen} of {count}: {name:<60.60}", end="", flush=True)
            elif seen % 10 == 0:
                say(f"  {seen} of {count}")
        elif line.startswith("Installing collected packages"):
            print("\r" * sys.stdout.isatty() + "  All there; putting them in place …".ljust(80), flush=True)
    return output


def reason(output: list[str]) -> str:
    text = "".join(output[-25:])
    if any(sign in text for sign in NETWORK_TROUBLE):
        return f"The packages could not be downloaded: no connection to the package index.\n\npip says:\n{text}"
    return f"The packages could not be installed. pip says:\n{text}"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
