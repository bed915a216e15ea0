"""Names of users that other programs take for numbers, or for root."""

from __future__ import annotations

import pytest

from tetrad.config.types import User


@pytest.mark.parametrize("name", ["0day", "-1", "4294967295", "0x0", "root ", "", "root:root"])
def test_a_user_is_a_name_of_this_machine(name: str) -> None:
    """The largest number would change nothing (setuid(2)), and a part of the text another user."""
    with pytest.raises(ValueError, match="this machine has no user"):
        User.parse(name)
