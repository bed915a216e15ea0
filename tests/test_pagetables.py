"""Text whose page tables handlers inherit: the kernel takes it for memory that was written to."""

from __future__ import annotations

import re
import subprocess
import sys

_PROGRAM = """
import sys
sys.path[:0] = {path!r}
from tetrad import pagetables
pagetables.have_text_copied()
print(open("/proc/self/smaps").read())
"""


def test_text_counts_as_written_to_and_is_unchanged() -> None:
    """One page of the interpreter's text and one of libc's are the process's own, no more."""
    program = _PROGRAM.format(path=sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", ran.stdout, flags=re.MULTILINE)
    written = {}
    for mapping in mappings:
        kib = re.search(r"^Anonymous: +([1-9]\d*) kB", mapping, re.MULTILINE)
        if " r-xp " in mapping and kib:
            written[mapping.partition("\n")[0].rpartition("/")[2]] = int(kib[1])
    assert any(name.startswith("libc.so") for name in written)
    assert any("python" in name for name in written)
    assert set(written.values()) == {4}
