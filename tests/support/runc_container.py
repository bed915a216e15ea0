"""A container as Kubernetes runs it: with runc, from the shipped manifest and this machine's files.

It adds what `pods` leaves out: the runtime, and its default seccomp profile, which is
`seccompProfile: RuntimeDefault`.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support import pod_sandbox as pods
from tests.support.processes import TIMEOUT_SECONDS, Ran, run, until

if TYPE_CHECKING:
    from tests.support.network_namespaces import Network

PROFILE = "/usr/share/containers/seccomp.json"
"""The default seccomp profile in Debian's golang-github-containers-common."""

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")

_BOOT = 'mount --bind / "$1/root"; shift; exec "$@"'
_IN_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _BOOT, "boot"]
"""The bind mount is private to the runtime, and ends with it."""

_NAMESPACES = ("pid", "mount", "ipc", "uts")
_CAPABILITIES = ("bounding", "effective", "inheritable", "permitted", "ambient")


class Container:
    """The Deployment's container, with a pod's folders and network."""

    def __init__(self, network: Network, folder: str) -> None:
        self.pod = pods.Pod(network, folder)
        self._name = f"tetrad-test-{os.getpid()}"
        self._bundle = folder
        self._runc = ["runc", "--root", os.path.join(folder, "state")]
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump(self._configuration(), file)

    def start(self) -> None:
        """Start it, and wait until its startup probe succeeds."""
        command = [*_IN_NAMESPACE, self._bundle, *self._runc]
        command += ["run", "--bundle", self._bundle, self._name]
        with open(os.path.join(self._bundle, "pod.out"), "wb") as output:
            self._process = self.pod.network.do(
                lambda: subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output
                )
            )
        until(lambda: self.probe("startupProbe").status == 0, f"its start: {self.pod.log()}")

    def probe(self, name: str) -> Ran:
        """Run a probe as kubelet does."""
        assert self._process.poll() is None, self.pod.log()
        return self.execute(*self.pod.container[name]["exec"]["command"])

    def execute(self, *command: str) -> Ran:
        """Run a command in the container, as its user."""
        return run(
            [*self._runc, "exec", self._name, *self.pod.translated(list(command))],
            dict(os.environ),
        )

    def end(self) -> int:
        """Stop it as kubelet does, and return its exit status."""
        run([*self._runc, "kill", self._name, str(int(signal.SIGTERM))], dict(os.environ))
        return self._process.wait(TIMEOUT_SECONDS)

    def close(self) -> None:
        """Remove the container."""
        run([*self._runc, "delete", "--force", self._name], dict(os.environ))
        self._process.kill()
        self._process.wait()

    def _configuration(self) -> dict[str, Any]:
        """Return the OCI runtime configuration."""
        context = self.pod.template["securityContext"]
        own = self.pod.container["securityContext"]
        user = {"uid": context["runAsUser"], "gid": context["runAsGroup"]}
        command = [*self.pod.container["command"], *self.pod.container["args"]]
        process = {
            "user": user,
            "cwd": "/",
            "args": self.pod.translated(command),
            "env": list(pods.VARIABLES),
            "noNewPrivileges": not own["allowPrivilegeEscalation"],
            "capabilities": {name: [] for name in _CAPABILITIES},
        }
        _, empty, configuration = self.pod.folders
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            _bound(empty, "/run/tetrad", "rw"),
            _bound(configuration, "/run/configuration", "ro"),
        ]
        namespaces = [{"type": name} for name in _NAMESPACES]
        return {
            "ociVersion": "1.0.2",
            "root": {"path": "root", "readonly": own["readOnlyRootFilesystem"]},
            "process": process,
            "mounts": mounts,
            "linux": {"namespaces": namespaces, "seccomp": _default_profile()},
        }


def _bound(source: str, destination: str, mode: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["bind", mode],
    }


def _default_profile() -> dict[str, Any]:
    """Return the seccomp profile for a process without capabilities."""
    with open(PROFILE, encoding="utf-8") as file:
        profile = json.load(file)
    keys = ("names", "action", "args", "errnoRet")
    rules = [rule for rule in profile["syscalls"] if _applies(rule.get("includes") or {})]
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "syscalls": [{key: rule[key] for key in keys if rule.get(key)} for rule in rules],
    }


def _applies(includes: dict[str, list[str]]) -> bool:
    architectures = includes.get("arches")
    return not includes.get("caps") and (not architectures or _ARCHITECTURE in architectures)
