"""A pod as a container runtime sets it up from the shipped manifest, with this machine's files.

Its first process runs as pid 1 of its own pid namespace, as the manifest's user, without
privileges, with a read-only root and its volumes. Seccomp and control groups are left out (see
`runc_container`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.processes import (
    TIMEOUT_SECONDS,
    Process,
    Ran,
    assert_no_traceback,
    children_of,
    run,
    title_of,
    until,
)
from tests.support.project import ROOT

if TYPE_CHECKING:
    from tests.support.network_namespaces import Network

FOLDER = ROOT / "etc" / "kubernetes"

Manifest = dict[str, Any]

PROGRAM = "/opt/tetrad/bin/tetrad"
"""The path in the image; the tests run their own `tetrad` instead."""

VARIABLES = ("PATH=/usr/bin:/bin", "TETRAD_CONFIG=/run/configuration/tetrad.yaml")
"""The second replaces /etc/tetrad/tetrad.yaml: this machine may have no such folder."""

_NAMESPACES = [
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--ipc"),
    *("--pid", "--fork", "--kill-child=KILL"),
]
"""The container ends with the tests, with all its processes and mounts."""

_SET_UP = """
root=$1 empty=$2 configuration=$3
shift 3
mount --rbind / "$root"
mount -t tmpfs tmpfs "$root/run"
mkdir "$root/run/tetrad" "$root/run/configuration"
mount --bind "$empty" "$root/run/tetrad"
mount --bind "$configuration" "$root/run/configuration"
mount -o remount,bind,ro "$root/run/configuration"
mount -o remount,ro "$root/run"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
cd /
exec chroot "$root" "$@"
"""


def manifests() -> dict[str, Manifest]:
    """Return the shipped manifests by kind."""
    text = (FOLDER / "tetrad.yaml").read_text("utf-8")
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


class Pod:
    """A pod of the Deployment, whose container can be started repeatedly."""

    def __init__(self, network: Network, folder: str) -> None:
        self.network = network
        self.template: Manifest = manifests()["Deployment"]["spec"]["template"]["spec"]
        (self.container,) = self.template["containers"]
        self._output = os.path.join(folder, "pod.out")
        self.folders = [os.path.join(folder, name) for name in ("root", "run", "configuration")]
        for path in self.folders:
            os.mkdir(path)
        os.chmod(self.folders[1], 0o777)  # noqa: S103 - as an emptyDir is
        with open(os.path.join(self.folders[2], "tetrad.yaml"), "w", encoding="utf-8") as file:
            file.write(manifests()["ConfigMap"]["data"]["tetrad.yaml"])
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the container, and wait until its startup probe succeeds."""
        command = [*self.container["command"], *self.container["args"]]
        command_line = [
            *_NAMESPACES,
            "sh",
            "-euc",
            _SET_UP,
            "pod",
            *self.folders,
            *self._as_user(command),
        ]
        nothing = subprocess.DEVNULL
        with open(self._output, "ab") as output:
            started = self.network.do(
                lambda: subprocess.Popen(command_line, stdin=nothing, stdout=nothing, stderr=output)
            )
        self._processes.append(started)
        until(self._is_running, f"the first process of the pod: {self.log()}")
        until(lambda: self.probe("startupProbe").status == 0, f"the pod's start: {self.log()}")

    def _is_running(self) -> bool:
        assert self._processes[-1].poll() is None, self.log()
        return title_of(self.pid).startswith("tetrad: master")

    @property
    def pid(self) -> int:
        """The pid of the first process, in this pid namespace; 0 if there is none."""
        return next(iter(children_of(self._processes[-1].pid)), 0)

    def probe(self, name: str) -> Ran:
        """Run a probe as kubelet does."""
        return self.execute(*self.container[name]["exec"]["command"])

    def execute(self, *command: str) -> Ran:
        """Run a command in the container, as its user."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-i", "-r", "-w", "--"]
        return run([*enter, *self._as_user(list(command))], {"PATH": os.environ["PATH"]})

    def _as_user(self, command: list[str]) -> list[str]:
        """Return the command line that runs a command with the manifest's security context."""
        pod, own = self.template["securityContext"], self.container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"]
        setpriv = ["setpriv", f"--reuid={pod['runAsUser']}", f"--regid={pod['runAsGroup']}"]
        setpriv += ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
        setpriv += [] if own["allowPrivilegeEscalation"] else ["--no-new-privs"]
        return [*setpriv, "env", "-i", *VARIABLES, *self.translated(command)]

    def translated(self, command: list[str]) -> list[str]:
        """Return a command of the manifest with this machine's `tetrad`."""
        ours = os.path.join(sys.prefix, "bin", "tetrad")
        return [ours if word == PROGRAM else word for word in command]

    def log(self) -> str:
        """Return everything written to standard error."""
        with open(self._output, encoding="utf-8") as file:
            text = file.read()
        assert_no_traceback(text)
        return text

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the first process; return the container's exit status."""
        with_children = [Process(pid) for pid in (self.pid, *children_of(self.pid))]
        with_children[0].signal(number)
        status = self._processes[-1].wait(TIMEOUT_SECONDS)
        for process in with_children:
            assert process.has_ended(), "a process outlived its pod"
            process.close()
        return status

    def close(self) -> None:
        """Kill the container's processes."""
        for process in self._processes:
            # The change of user has cleared the first process's parent-death signal.
            for pid in children_of(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
