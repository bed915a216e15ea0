"""The manual pages: keys and their defaults are those of the program, and the examples work."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.support.certificates import needs_openssl
from tests.support.clients import ANSWER
from tests.support.manual_pages import (
    ALL,
    COMMANDS_FILE,
    CONFIGURATION,
    SOURCES,
    Item,
    Page,
    every_page,
)
from tests.support.processes import TIMEOUT_SECONDS
from tetrad import cli
from tetrad.config import json_schema, paths, yaml_reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fixtures import MakeDaemon

pytestmark = pytest.mark.quick

SCHEMA = json_schema.schema()

DEFINITIONS = SCHEMA["definitions"]

REQUIRED = "required"


def keys_of(section: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the keys of a section and of the sections in it."""
    for name, key in DEFINITIONS[section]["properties"].items():
        yield path + name, key
        for part in referred(key):
            yield from keys_of(part, f"{path}{name}.")


def referred(key: dict[str, Any]) -> list[str]:
    """Return the sections that a key's schema refers to."""
    parts = [key, key.get("items", {}), *key.get("anyOf", ())]
    parts += key.get("additionalProperties", {}).get("anyOf", ())
    names = [part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part]
    return [name for name in names if "properties" in DEFINITIONS[name]]


def all_keys() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every key by its path, such as `listen[].port`, with its schema."""
    for name, key in SCHEMA["properties"].items():
        path = {"listen": "listen[].", "commands": "commands.*."}.get(name, f"{name}.")
        for section in referred(key):
            yield from keys_of(section, path)


KEYS = dict(all_keys())

SECTIONS = {*SCHEMA["properties"]}

DOCUMENTED_KEYS = [
    item for manual in (CONFIGURATION, COMMANDS_FILE) for item in manual.find("KEYS", "Va")
]


def test_every_key_is_documented_with_its_default() -> None:
    """And no other; the defaults are root's."""
    documented = {}
    for item in DOCUMENTED_KEYS:
        (path,) = item.named("Va")
        *_, word, value = (REQUIRED, item.head[-1].text) if is_required(item) else default_of(item)
        assert path not in documented, path
        documented[path] = (word, value)
    expected = {
        path: ("default", shown(key["default"])) if "default" in key else (REQUIRED, REQUIRED)
        for path, key in KEYS.items()
    }
    assert documented == expected


def is_required(item: Item) -> bool:
    """Return whether an item describes its key as required."""
    return item.head[-1].text == REQUIRED


def default_of(item: Item) -> tuple[str, str]:
    """Return the end of an item's head: the word `default`, and the default."""
    return item.head[-2].text, item.head[-1].text


def shown(default: object) -> str:
    """Return a default as the pages show it."""
    return default if isinstance(default, str) and default else json.dumps(default)


def test_every_choice_of_a_key_is_documented() -> None:
    """The values of a key that is one of several words."""
    for item in DOCUMENTED_KEYS:
        key = KEYS[item.head[0].text]
        if "enum" in key:
            assert set(item.named("Cm")) == set(key["enum"])


def test_every_range_of_a_key_is_documented() -> None:
    """The least and the greatest number."""
    for item in DOCUMENTED_KEYS:
        key = KEYS[item.head[0].text]
        numbers = next((k for k in (key, *key.get("anyOf", ())) if "minimum" in k), None)
        if numbers is not None:
            expected = f"{numbers['minimum']} to {numbers['maximum']}"
            assert any(expected in name.text for name in item.head)


def test_every_section_is_documented() -> None:
    """Each has a part of the section KEYS."""
    titles = CONFIGURATION.titles
    start, end = titles.index("KEYS") + 1, titles.index("TYPES")
    assert {*titles[start:end]} == SECTIONS


def test_every_type_is_explained() -> None:
    """Types that keys have are in the section TYPES, and those in it are used."""
    explained = {n for item in CONFIGURATION.find("TYPES", "Vt") for n in item.named("Vt")}
    used = {name for item in DOCUMENTED_KEYS for name in item.named("Vt")}
    assert explained == used | {"command name"}


def test_the_variables_of_programs_are_documented() -> None:
    """Those that tell a program about its client."""
    documented = {n for item in COMMANDS_FILE.find("PROGRAMS", "Ev") for n in item.named("Ev")}
    found = {name for text in SOURCES.values() for name in re.findall('"(TETRAD_[A-Z]+)"', text)}
    assert documented == found - {paths.CONFIGURATION_VARIABLE, cli.DEBUG_VARIABLE}


@every_page
def test_no_key_is_mentioned_that_does_not_exist(manual: Page) -> None:
    """Names with a dot whose first part is that of a section."""
    for name in manual.names:
        if name.macro == "Va" and re.split(r"[.\[]", name.text)[0] in SECTIONS:
            assert name.text in {*KEYS, *SECTIONS}


def configurations() -> list[str]:
    """Return the files in the pages, but for the one with certificates."""
    return [
        text
        for manual in ALL
        for section, text in manual.blocks
        if re.match("(listen|commands):", text) and section != "TLS"
    ]


@pytest.mark.parametrize("text", configurations())
def test_a_configuration_in_a_page_is_valid(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By tetrad and by the schema; the function that one of them names is in the page, too."""
    (module,) = (t for _, t in COMMANDS_FILE.blocks if t.startswith("# mycompany/tetrad.py"))
    (tmp_path / "mycompany").mkdir()
    (tmp_path / "mycompany" / "tetrad.py").write_text(module, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    # The user of the service exists only where that is installed.
    text = text.replace("user: tetrad\n", "user: nobody\n")
    (tmp_path / "tetrad.yaml").write_text(text, "utf-8")
    assert yaml_reader.load(str(tmp_path / "tetrad.yaml")).problems == []
    assert Draft7Validator(SCHEMA).is_valid(yaml.safe_load(text))


@needs_openssl
def test_the_recipe_for_tls_works(daemon: MakeDaemon, tmp_path: Path) -> None:
    """The certificates are made, the listener accepts them, and its pattern matches the client."""
    recipe, settings, client = (text for section, text in CONFIGURATION.blocks if section == "TLS")
    made = subprocess.run(
        ["/bin/sh", "-e"], input=recipe, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    (listener,) = yaml.safe_load(settings)["listen"]
    files = {
        key: str(tmp_path / listener["tls"][key]) for key in ("certificate", "key", "client_ca")
    }
    served = daemon(listen=[{**listener, "port": 0, "tls": listener["tls"] | files}])
    program, *arguments, word = shlex.split(client)
    assert (program, word) == ("tetrad", "time")
    command = [sys.executable, "-m", "tetrad", *arguments, "--port", str(served.port), word]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, check=True, timeout=TIMEOUT_SECONDS
    )
    assert ANSWER.fullmatch(done.stdout.strip())
    subject = served.wait_for("client.command")["subject"]
    (shown,) = (t.text for t in CONFIGURATION.names if t.text.startswith("CN=monitor,"))
    assert subject == shown
