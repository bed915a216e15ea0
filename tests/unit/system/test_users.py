"""Users and groups by name and by id."""

from __future__ import annotations

import grp
import pwd

import pytest

from tetrad.system import users

FREE_ID = 3_999_999_999
"""An id that no user and no group of a machine has."""


def test_a_user_is_known_by_name_and_by_id() -> None:
    """Its group comes from its entry."""
    found = pwd.getpwall()[-1]
    expected = (found.pw_uid, pwd.getpwuid(found.pw_uid).pw_gid)
    assert users.user(found.pw_name) == (found.pw_uid, found.pw_gid)
    assert users.user(str(found.pw_uid)) == expected
    assert users.user_name(0) == "root"
    assert users.home(0) == pwd.getpwuid(0).pw_dir


def test_an_id_needs_no_entry() -> None:
    """But then it has no group, no name and no home."""
    assert users.user(str(FREE_ID)) == (FREE_ID, None)
    assert users.group(str(FREE_ID)) == FREE_ID
    assert (users.user_name(FREE_ID), users.home(FREE_ID)) == (str(FREE_ID), "")
    assert users.group(grp.getgrgid(0).gr_name) == users.group("0") == 0


@pytest.mark.parametrize("text", ["", "-1", "+1", "01", "1.0", "٣", "4294967295", "no body"])
def test_other_texts_are_names(text: str) -> None:
    """Of nobody here."""
    for look_up in (users.user, users.group):
        with pytest.raises(KeyError):
            look_up(text)
