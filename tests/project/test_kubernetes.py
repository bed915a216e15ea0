"""The Kubernetes manifests are valid and consistent, and a pod made from them works.

Kubernetes itself is not needed: its schemas check the manifests, and `pods` and `runc_container`
set up what they describe.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

import kubernetes_validate
import pytest

from tests.support import pod_sandbox as pods
from tests.support import runc_container
from tests.support.clients import ANSWER, Client
from tests.support.network_namespaces import Network
from tests.support.processes import (
    TIMEOUT_SECONDS,
    children_of,
    state_of,
    status_of,
    stopped,
    until,
)
from tests.support.project import ROOT
from tests.support.readable_python import nobody_can_run_python
from tests.support.system_programs import require
from tetrad.config import paths, yaml_reader
from tetrad.config.types import Duration
from tetrad.master import logger_supervisor, process

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.pod_sandbox import Pod
    from tests.support.runc_container import Container
    from tetrad.config.model import Config

OLDEST = "1.31"
PORT = 65000

MANIFESTS = pods.manifests()
POD = MANIFESTS["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


@pytest.fixture
def config(tmp_path: pathlib.Path) -> Config:
    """Return the configuration of the ConfigMap."""
    (name,) = MANIFESTS["ConfigMap"]["data"]
    file = tmp_path / name
    file.write_text(MANIFESTS["ConfigMap"]["data"][name], "utf-8")
    return yaml_reader.load(str(file)).checked().config


@pytest.fixture
def pod(nobodys_folder: str) -> Iterator[Pod]:
    """Set up a pod in a network namespace."""
    require("ip", "unshare", "setpriv", "nsenter")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(contextlib.closing(Network()))
        yield stack.enter_context(contextlib.closing(pods.Pod(network, nobodys_folder)))


@pytest.fixture(scope="module")
def running_pod(public_folder: str) -> Iterator[Pod]:
    """Start a pod that tests share. They leave it running."""
    require("ip", "unshare", "setpriv", "nsenter")
    if os.geteuid():
        pytest.skip("only root can set up a pod: run the tests as root")
    if not nobody_can_run_python():
        pytest.skip(f"other users cannot execute {sys.executable}: use a Python that all can read")
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(contextlib.closing(Network()))
        folder = tempfile.mkdtemp(dir=public_folder)
        os.chmod(folder, 0o755)  # noqa: S103 - the pod's user may enter it
        shared = stack.enter_context(contextlib.closing(pods.Pod(network, folder)))
        shared.start()
        yield shared


@pytest.fixture
def container(nobodys_folder: str) -> Iterator[Container]:
    """Set up a container for runc in a network namespace."""
    if shutil.which("runc") is None or not os.path.exists(runc_container.PROFILE):
        pytest.skip(
            "runc or its seccomp profile: apt-get install runc golang-github-containers-common"
        )
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(contextlib.closing(Network()))
        yield stack.enter_context(
            contextlib.closing(runc_container.Container(network, nobodys_folder))
        )


def connect(pod: Pod) -> Client:
    """Connect to a pod."""
    where = ("127.0.0.1", PORT)
    return Client(pod.network.do(lambda: socket.create_connection(where, TIMEOUT_SECONDS)))


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("kind", sorted(MANIFESTS))
def test_the_manifests_are_valid(kind: str, version: str) -> None:
    """Every field is known to the Kubernetes schemas."""
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_all_selectors_match_the_pods() -> None:
    """Each one selects the pods of the Deployment."""
    specs = {kind: manifest.get("spec", {}) for kind, manifest in MANIFESTS.items()}
    labels = POD["metadata"]["labels"]
    assert specs["Service"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert specs[kind]["selector"] == {"matchLabels": labels}
    assert specs["NetworkPolicy"]["podSelector"] == {"matchLabels": labels}


def test_service_policy_and_configuration_have_one_port(config: Config) -> None:
    """They refer to it by one name."""
    (port,) = CONTAINER["ports"]
    (listener,) = config.listen
    assert port["containerPort"] == listener.port == PORT
    assert listener.address == "0.0.0.0"  # noqa: S104 - the pod's own
    (service,) = MANIFESTS["Service"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    (rule,) = MANIFESTS["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": port["name"]}]


def test_all_files_are_on_the_volume(config: Config) -> None:
    """Pidfile and control socket are on the in-memory volume; the log is standard error."""
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    files = (config.daemon.pidfile, config.daemon.control)
    assert {os.path.dirname(file) for file in files} == {mounts["run"]}
    assert config.log.file is None
    assert mounts["configuration"] == os.path.dirname(paths.SYSTEM_CONFIGURATION)


def test_the_grace_period_exceeds_the_stop_timeout(config: Config) -> None:
    """Kubernetes does not kill a pod before tetrad has ended its sessions."""
    _, seconds = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    stop = (
        config.daemon.stop_timeout
        + process.KILL_MARGIN_SECONDS
        + logger_supervisor.FINAL_FLUSH_SECONDS
    )
    assert POD["spec"]["terminationGracePeriodSeconds"] > Duration.parse(f"{seconds}s") + stop


def test_the_containerfile_matches_the_package() -> None:
    """It copies existing files, and runs the program of the manifest."""
    lines = (pods.FOLDER / "Containerfile").read_text("utf-8").splitlines()
    words = [
        shlex.split(line) for line in lines if line.startswith("COPY") and "--from" not in line
    ]
    copied = {source for _, *sources, _ in words for source in sources}
    assert all((ROOT / source).exists() for source in copied)
    files = {"pyproject.toml", "README.md", "LICENSE"}
    assert files | {"src", "etc", "systemd"} == copied
    assert f"ENTRYPOINT {json.dumps(CONTAINER['command'])}" in lines
    assert f"CMD {json.dumps(CONTAINER['args'])}" in lines
    context = POD["spec"]["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in lines


def test_a_pod_serves_and_stops(pod: Pod) -> None:
    """As pid 1, unprivileged, with a read-only root; its log is complete."""
    pod.start()
    client = connect(pod)
    assert ANSWER.fullmatch(client.ask())
    assert [pod.probe(f"{name}Probe").status for name in ("readiness", "liveness")] == [0, 0]
    status = status_of(pod.pid)
    assert status["NSpid"].split()[-1] == "1"
    assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert pod.end() == 0
    assert client.read_all() == b""
    client.close()
    lines = [json.loads(line) for line in pod.log().splitlines()]
    assert [line["event"] for line in lines][-2:] == ["client.disconnected", "server.stopped"]


def test_only_the_volume_is_writable(running_pod: Pod) -> None:
    """No other folder of the pod's root is."""
    find = ("find", "/", "/run", "-xdev", "-maxdepth", "3", "-type", "d", "-writable", "-print")
    assert running_pod.execute(*find).out.split() == ["/run/tetrad"]


def test_orphans_in_a_pod_are_reaped(running_pod: Pod) -> None:
    """Pid 1 reaps the orphans of the container."""
    master = running_pod.pid
    before = set(children_of(master))
    assert running_pod.execute("sh", "-c", "(sleep 0.2; exit 3) & exec sleep 0").status == 0
    until(lambda: set(children_of(master)) <= before, "the end of an orphan")
    assert "Z" not in {state_of(pid) for pid in children_of(master)}


def test_a_killed_container_starts_again(pod: Pod) -> None:
    """Files of the killed container on the volume do not prevent the start."""
    pod.start()
    assert pod.end(signal.SIGKILL) != 0
    pod.start()
    with contextlib.closing(connect(pod)) as client:
        assert ANSWER.fullmatch(client.ask())
    assert pod.end() == 0


def test_probes_detect_a_hanging_daemon(running_pod: Pod) -> None:
    """The kernel still accepts connections, but the probes fail in time."""
    with stopped(running_pod.pid):
        connect(running_pod).close()
        assert running_pod.probe("livenessProbe").status != 0
    assert running_pod.probe("livenessProbe").status == 0


def test_runc_runs_it_with_the_default_seccomp_profile(container: Container) -> None:
    """The system calls that every container may make are sufficient."""
    container.start()
    client = connect(container.pod)
    assert ANSWER.fullmatch(client.ask())
    seccomp = container.execute("grep", "Seccomp:", "/proc/1/status")
    assert seccomp.out.split() == ["Seccomp:", "2"]
    assert container.probe("readinessProbe").status == 0
    assert container.end() == 0
    client.close()
    lines = [json.loads(line) for line in container.pod.log().splitlines()]
    assert lines[-1]["event"] == "server.stopped"
