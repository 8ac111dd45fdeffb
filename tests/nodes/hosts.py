"""Hosts for tests: network, processes, /dev/shm and Ray's folder of their own, on one machine.

Each is a network namespace on a common bridge, with PID and mount namespaces inside. All processes of a host
end with its first one, so nothing outlives a test, whatever it did. The bridge has a namespace, too: where
Docker runs, the machine's own rules drop what bridges forward.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PORT = 6379  # of Ray; each host has its own ports
STORE_BYTES = 100 * 2**20
_BRIDGE = "bridge"
_HEAD = ["--head", f"--port={PORT}", "--include-dashboard=false"]
_FIRST_PROCESS = """
mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && mount -t tmpfs none /dev/shm && ip link set lo up
echo ready
exec sleep infinity
"""


@dataclass(eq=False)
class Host:
    """`init`: number of its first process, as this process sees it. `link`: the bridge's end of its cable, in
    the namespace `switch`."""

    name: str
    address: str
    switch: str
    link: str
    init: int
    settings: dict[str, str]
    stopped: list[int] = field(default_factory=list)

    def start(self, command: Sequence[str], **options: object) -> subprocess.Popen[str]:
        """Starts a command on the host, in this process's folder."""
        enter = ["nsenter", f"--target={self.init}", "--net", "--pid", "--mount", f"--wdns={Path.cwd()}"]
        return subprocess.Popen([*enter, *command], env={**os.environ, **self.settings}, text=True, **options)

    def start_ray(self, cpus: int, head: Host | None = None) -> subprocess.Popen[str]:
        """Starts Ray's processes on the host, and returns the command that waits for them."""
        role = [f"--address={head.address}:{PORT}"] if head else _HEAD
        return self.start(
            [
                *(str(Path(sys.executable).with_name("ray")), "start", *role),
                *(f"--node-ip-address={self.address}", f"--num-cpus={cpus}"),
                *(f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats"),
                "--include-log-monitor=false",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def cut_off(self) -> None:
        """Pulls the cable."""
        _ip("-n", self.switch, "link", "set", self.link, "down")

    def reconnect(self) -> None:
        _ip("-n", self.switch, "link", "set", self.link, "up")

    def freeze(self) -> None:
        """Stops every process of the host but the first."""
        self.stopped = [pid for pid, _ in self.processes()]
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill_raylet(self) -> None:
        for pid, command in self.processes():
            if Path(command.split(" ")[0]).name == "raylet":
                os.kill(pid, signal.SIGKILL)

    def power_off(self) -> None:
        """Ends all processes of the host at once."""
        os.kill(self.init, signal.SIGKILL)

    def processes(self) -> list[tuple[int, str]]:
        """(number, command) of all but the first."""
        mine = Path(f"/proc/{self.init}/ns/pid").stat().st_ino
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "ns/pid").stat().st_ino == mine and int(entry.name) != self.init:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append((int(entry.name), command))
        return found


def why_not() -> str:
    """Why hosts cannot be made here; empty where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    missing = [tool for tool in ("ip", "nsenter", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)}"
    name = f"dbp-{secrets.token_hex(3)}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces are not permitted: {tried.stderr.strip()}"
    made = subprocess.run(
        ["ip", "-n", name, "link", "add", "b0", "type", "bridge"], capture_output=True, text=True, check=False
    )
    _ip("netns", "delete", name)
    return f"bridges are not permitted: {made.stderr.strip()}" if made.returncode else ""


@contextmanager
def hosts(count: int, folder: Path) -> Iterator[list[Host]]:
    """`count` hosts on one network of their own, without Ray yet. `folder`: for the token of Ray."""
    tag = secrets.token_hex(3)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PYTHONPATH": str(REPOSITORY),
        "OPENBLAS_NUM_THREADS": "1",
    }
    network = f"10.{213 + int(tag[0], 16)}.{int(tag[1:3], 16)}"
    with ExitStack() as stack:
        switch = f"dbp-{tag}"
        _ip("netns", "add", switch)
        stack.callback(_ip, "netns", "delete", switch)
        _ip("-n", switch, "link", "add", _BRIDGE, "type", "bridge")
        _ip("-n", switch, "address", "add", f"{network}.254/24", "dev", _BRIDGE)
        _ip("-n", switch, "link", "set", _BRIDGE, "up")
        made = []
        for number in range(1, count + 1):
            made.append(stack.enter_context(_host(f"{tag}{number}", f"{network}.{number}", switch, settings)))
        yield made


@contextmanager
def _host(tag: str, address: str, switch: str, settings: dict[str, str]) -> Iterator[Host]:
    name, link = f"dbp-{tag}", f"dbv{tag}"
    with ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "delete", name)
        _ip("-n", switch, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("-n", switch, "link", "set", link, "master", _BRIDGE, "up")
        _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "route", "add", "default", "via", f"{address.rpartition('.')[0]}.254")
        unshare = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
            "sh",
            "-c",
            _FIRST_PROCESS,
        ]
        outer = subprocess.Popen(["ip", "netns", "exec", name, *unshare], stdout=subprocess.PIPE, text=True)
        stack.callback(_end, outer)
        assert outer.stdout is not None and outer.stdout.readline() == "ready\n"
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        yield Host(name, address, switch, link, int(children[0]), settings)


def _end(outer: subprocess.Popen[str]) -> None:
    outer.kill()
    outer.wait()
    assert outer.stdout is not None
    outer.stdout.close()


def _ip(*arguments: str) -> None:
    # A link goes with the namespace of its other end, which the kernel clears in the background.
    subprocess.run(["ip", *arguments], check=arguments[1] != "delete", capture_output=True)
