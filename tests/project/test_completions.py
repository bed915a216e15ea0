"""The shell completions: they are up to date, and the shells offer what they should."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.support.completions import COMMAND, FILES, FOLDER, script
from tests.support.system_programs import output_of

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("shell", FILES)
def test_the_file_is_what_shtab_makes(shell: str) -> None:
    """A change of the command line changes the completions."""
    file = FOLDER / FILES[shell]
    assert file.read_text("utf-8") == script(shell), f"{file} is out of date: {COMMAND}"


def test_there_is_no_other_file() -> None:
    """Every file in the folder belongs to a shell."""
    assert {file.name for file in FOLDER.iterdir()} == set(FILES.values())


@pytest.mark.parametrize("columns", ["30", "300"])
def test_the_width_of_the_terminal_does_not_matter(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The help texts are not wrapped."""
    expected = script("fish")
    monkeypatch.setenv("COLUMNS", columns)
    assert script("fish") == expected


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["re"], {"restart", "reload"}),
        (["-c", "/dev/nul"], {"/dev/null"}),
        (["start", "--config", "/dev/nul"], {"/dev/null"}),
        (["status", "--f"], {"--format"}),
        (["status", "--format", ""], {"text", "json", "prometheus", "openmetrics"}),
        (["logs", "--follow", "--level", "w"], {"warning"}),
        (["-c", "tetrad.yaml", "logs", "--level="], {"debug", "info", "warning", "error"}),
        (["logs", "--level=w"], {"warning"}),
        (["logs", "--event", "log."], {"log.reopened", "log.lost"}),
        (["client", "--service", ""], {"command", "echo"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_completes_commands_options_and_values(
    shell: str, typed: list[str], offered: set[str]
) -> None:
    """Bash and fish can be asked without a terminal."""
    file = FOLDER / FILES[shell]
    line = " ".join(["tetrad", *typed])
    if shell == "bash":
        words = [shlex.quote(word) for word in re.findall("=|[^= ]+", line)]
        words += ["''"] * (typed[-1] == "")
        found = output_of(
            "bash",
            "--norc",
            script=f"source {file}\nCOMP_WORDS=({' '.join(words)})\nCOMP_CWORD={len(words) - 1}\n"
            "_tetrad 2>&1\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n",
        )
    else:
        found = output_of("fish", "-N", "-c", f"source {file}; complete -C '{line}'")
    # fish shows an option and its value in one word.
    answers = {word.partition("\t")[0].rpartition("=")[2] for word in found.split("\n")}
    # Where no line is being typed, compopt prints an error.
    assert {word for word in answers if word and "compopt" not in word} == offered


ZSH = """
zmodload zsh/zpty
TERM=dumb zpty shell zsh -f -i
zpty -w shell "fpath=({folder} \\$fpath); autoload -U compinit && compinit -D; print rea''dy"
zpty -r shell output '*ready*'
zpty -w -n shell $'{typed}\t'
zpty -r shell output '*{offered}*'
"""
"""Type a line into zsh on a pseudo-terminal, press Tab, and wait for the text that it inserts."""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tetrad upg", "upgrade"),
        ("tetrad -c /dev/nul", "/dev/null"),
        ("tetrad status --form", "--format"),
        ("tetrad status --format open", "openmetrics"),
        ("tetrad logs --level w", "warning"),
        ("tetrad logs --event certificate", "certificate.expires"),
    ],
)
def test_zsh_completes_commands_options_and_values(typed: str, offered: str) -> None:
    """It completes only at a terminal."""
    output_of("zsh", "-f", script=ZSH.format(folder=FOLDER, typed=typed, offered=offered))


@pytest.mark.parametrize(("shell", "name"), FILES.items())
def test_a_shell_reads_its_completions(shell: str, name: str) -> None:
    """The shell finds no error in the syntax."""
    assert output_of(shell, "-n", str(FOLDER / name)) == ""
