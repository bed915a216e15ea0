"""README.md: its code blocks run as printed, and its tables match the program."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.support import markdown_pages as pages
from tests.support.markdown_pages import README
from tests.support.project import ROOT
from tests.support.system_programs import needs
from tetrad.config import yaml_reader
from tetrad.ipc import log_protocol

pytestmark = pytest.mark.quick

OPERATING = ROOT / "etc" / "README.md"
BALANCER = ROOT / "etc" / "haproxy" / "README.md"

NEEDED = "hatchling is not installed: pip install hatchling hatch-fancy-pypi-readme"

needs_namespaces = pytest.mark.skipif(bool(pages.obstacle()), reason=pages.obstacle())


def project() -> dict[str, object]:
    """Return the `project` table of pyproject.toml."""
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found = table["project"]
    assert isinstance(found, dict)
    return found


@functools.cache
def help_of(*words: str) -> str:
    """Return the help text of a command."""
    command = [sys.executable, "-m", "tetrad", *words, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def cheat_sheet() -> dict[str, str]:
    """Return the usage of each command in the first column of the table: `status [--json]`."""
    rows = re.findall(
        r"^\| (`tetrad .*?) \|", pages.section(README, "## Cheat sheet"), re.MULTILINE
    )
    usages = [usage.removeprefix("tetrad ") for row in rows for usage in re.findall("`(.*?)`", row)]
    return {usage.split()[0]: usage for usage in usages}


@needs_namespaces
def test_the_session_runs_as_printed() -> None:
    """An ordinary user with an empty home gets the output that is shown, and stops the daemon."""
    with pages.OrdinaryUser() as user:
        user.follow(pages.blocks(README))
        assert user.run("ps -eo args | grep '^[t]etrad: ' || true") == ""


@needs_namespaces
def test_alerts_name_metrics_that_exist() -> None:
    """Every metric in the table of alerts is in the output of a running daemon."""
    wanted = set(re.findall(r"`(tetrad_[a-z_]+)", pages.section(OPERATING, "## Alerts")))
    with pages.OrdinaryUser() as user:
        user.run("tetrad start")
        metrics = user.run("tetrad status --format prometheus")
    assert {one for one in wanted if not re.search(rf"^{one}\b", metrics, re.MULTILINE)} == set()


def test_alerts_name_events_that_exist() -> None:
    """Every event in the table of alerts is one that tetrad logs."""
    logged = [value for name, value in vars(log_protocol).items() if name.isupper()]
    named = re.findall(r"`([a-z]+\.[a-z_]+)`", pages.section(OPERATING, "## Alerts"))
    assert named
    assert {event for event in named if event not in logged} == {"limits.clients"}


@needs("haproxy")
def test_haproxy_accepts_the_minimal_configuration(tmp_path: pathlib.Path) -> None:
    """The snippet is complete: HAProxy neither rejects it nor warns."""
    (block,) = pages.blocks(BALANCER, "haproxy")
    file = tmp_path / "haproxy.cfg"
    file.write_text(block.text, "utf-8")
    command = [shutil.which("haproxy") or "", "-c", "-dW", "-f", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("page", [README, BALANCER], ids=lambda page: page.parent.name)
def test_every_configuration_is_valid(tmp_path: pathlib.Path, page: pathlib.Path) -> None:
    """Each YAML block loads without a problem."""
    found = pages.blocks(page, "yaml")
    assert found
    for block in found:
        file = tmp_path / "tetrad.yaml"
        file.write_text(block.text, "utf-8")
        assert yaml_reader.load(str(file)).problems == []


def test_the_configuration_has_twelve_lines() -> None:
    """The example has twelve lines, not counting the one that names the file."""
    (block,) = pages.blocks(README, "yaml")
    assert len(block.text.splitlines()) == 1 + 12


def test_the_cheat_sheet_lists_every_command() -> None:
    """The table has the commands of `tetrad --help`, and no others."""
    commands = re.findall(r"^    (\w+)", help_of().partition("COMMAND\n")[2], re.MULTILINE)
    assert sorted(cheat_sheet()) == sorted(commands)


def test_the_cheat_sheet_names_options_that_exist() -> None:
    """The help text of the command lists every option in the table."""
    for command, usage in cheat_sheet().items():
        options = re.findall(r"(?<=[\[ ])--?[a-z]+", usage)
        assert [one for one in options if not re.search(rf"{one}\b", help_of(command))] == []


def test_the_python_versions_are_those_of_the_package() -> None:
    """The versions in the text are those of the classifiers, and pip accepts none below."""
    (line,) = re.findall(r"On Linux with Python (.*), in a checkout", README.read_text("utf-8"))
    versions = re.findall(r"\d\.\d+", line)
    classifiers = project()["classifiers"]
    assert isinstance(classifiers, list)
    assert versions == re.findall(r"Python :: (\d\.\d+)", "\n".join(classifiers))
    assert project()["requires-python"] == f">={versions[0]}"


def test_ci_finds_the_test_command() -> None:
    """.ci/run takes the one line that begins with python3 and ends with pytest."""
    lines = README.read_text("utf-8").splitlines()
    assert len([line for line in lines if re.fullmatch(r"python3 -m venv .*pytest", line)]) == 1


@pytest.mark.long
@pytest.mark.timeout(300)
@needs_namespaces
def test_the_install_command_installs_and_serves() -> None:
    """In a copy of the checkout, the first command serves in the foreground."""
    (line,) = re.findall(r"^python3 .*tetrad run$", README.read_text("utf-8"), re.MULTILINE)
    install, _, serve = line.rpartition(" && ")
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache")
    with pages.OrdinaryUser() as user:
        checkout = pathlib.Path(user.home).parent / "checkout"
        shutil.copytree(ROOT, checkout, ignore=ignored)
        path = f"{sys.base_prefix}/bin:{os.environ['PATH']}"  # python3 is the tests' interpreter
        environment = {**os.environ, "PATH": path}
        subprocess.run(["/bin/sh", "-ec", install], cwd=checkout, env=environment, check=True)
        user.run(f"cd {checkout} && ({serve} >~/output 2>&1 &)")
        user.run("until printf timequit | nc 127.0.0.1 65000 | grep quit; do sleep 0.1; done")


def test_the_long_description_has_no_relative_links() -> None:
    """A package index shows README.md with paths as text; links would lead nowhere there."""
    metadata = pytest.importorskip("hatchling.metadata.core", reason=NEEDED)
    plugins = pytest.importorskip("hatchling.plugin.manager", reason=NEEDED)
    core = metadata.ProjectMetadata(str(ROOT), plugins.PluginManager()).core
    assert core.readme_content_type == "text/markdown"
    targets = re.findall(r"\]\(([^)]*)\)", core.readme)
    assert [target for target in targets if not re.match(r"https?:", target)] == []
    for path in re.findall(r"\]\(([^)]*)\)", README.read_text("utf-8")):
        assert f"`{path}`" in core.readme
