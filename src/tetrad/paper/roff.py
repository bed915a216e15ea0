"""Manual pages in the macros of man(7).

Text has two marks, `literal` and _replaceable_, and three kinds of blocks with empty lines between
them: a paragraph, a term with what is said about it indented below, and lines that are all indented
and stay as they are.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PARAGRAPH = ".PP\n"
"""What stands before a paragraph that is not the first."""

_MARKS = re.compile(r"`([^`]+)`|\b_([A-Za-z]+)_\b")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])(?<!e\.g\.) +(?=[A-Z`])")
_INDENT = "    "
_LONGEST_LINE = 78

_IN_TEXT = str.maketrans({"\\": r"\e", "^": r"\(ha", "~": r"\(ti"})
_IN_LITERALS = _IN_TEXT | str.maketrans({"-": r"\-", "'": r"\(aq", '"': r"\(dq"})


def header(name: str, number: int, date: str, source: str, manual: str) -> str:
    """Return the first line of a page."""
    return f'.TH {name.upper()} {number} "{date}" "{source}" "{manual}"\n'


def section(title: str, *parts: str) -> str:
    """Return a section of parts that are made already."""
    return f".SH {title}\n{''.join(parts)}"


def subsection(title: str, *parts: str) -> str:
    """Return a part of a section."""
    return f".SS {title}\n{''.join(parts)}"


def synopsis(command: str, words: Iterable[str]) -> str:
    """Return a way to call a command."""
    return f'.SY "{command}"\n' + "".join(f"{inline(word)}\n" for word in words) + ".YS\n"


def indented(text: str) -> str:
    """Return what stands further to the right, as below a term."""
    return f".RS\n{text}.RE\n" if text else ""


def terms(pairs: Iterable[tuple[str, str]]) -> str:
    """Return terms with what is said about them."""
    return "".join(f".TP\n{inline(term)}\n{prose(text)}" for term, text in pairs)


def text(blocks: str) -> str:
    """Return blocks of text, as described above."""
    made = ""
    each = blocks.strip("\n").split("\n\n")
    for is_literal, group in itertools.groupby(each, lambda block: block.startswith(_INDENT)):
        for block in ["\n\n".join(group)] if is_literal else group:
            term, _, rest = block.partition("\n")
            if rest.startswith(_INDENT) and not is_literal:
                made += terms([(term, rest)])
            else:
                made += PARAGRAPH if made else ""
                made += _lines(block) if is_literal else prose(block)
    return made


def prose(paragraph: str) -> str:
    """Return a paragraph; each sentence begins a line."""
    return "".join(
        f"{_guarded(line)}\n"
        for sentence in _SENTENCE_ENDS.split(" ".join(paragraph.split()))
        for line in textwrap.wrap(
            inline(sentence), _LONGEST_LINE, break_long_words=False, break_on_hyphens=False
        )
    )


def inline(marked: str) -> str:
    """Return a text with its marks turned into fonts."""
    made, end = "", 0
    for match in _MARKS.finditer(marked):
        font, content = ("B", match[1]) if match[1] else ("I", match[2])
        made += marked[end : match.start()].translate(_IN_TEXT)
        made += rf"\f{font}{content.translate(_IN_LITERALS)}\fR"
        end = match.end()
    return _guarded(made + marked[end:].translate(_IN_TEXT))


def _lines(block: str) -> str:
    lines = textwrap.dedent(block).translate(_IN_LITERALS).split("\n")
    return indented("".join([".nf\n", *(f"{_guarded(line)}\n" for line in lines), ".fi\n"]))


def _guarded(line: str) -> str:
    """Keep a line that begins like a request from being one."""
    return rf"\&{line}" if line.startswith((".", "'")) else line
