"""Whom a function's workers run as: names and numbers of users and groups, looked up on this device."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from agent.model.errors import SpecError
from agent.model.spec import SecurityContext

_USERS = "spec.securityContext"


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers, as the kernel wants them."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def identity(given: SecurityContext) -> Identity | None:
    """Who is meant; None where nobody else is. Raises SpecError: an unknown name, or only root could become them."""
    if given.run_as_user is None and given.run_as_group is None and not given.supplemental_groups:
        return None
    uid = os.geteuid() if given.run_as_user is None else _user(given.run_as_user)
    gid = _primary_group(uid) if given.run_as_group is None else _group(given.run_as_group)
    found = Identity(uid, gid, tuple(dict.fromkeys(_group(item) for item in given.supplemental_groups)))
    if os.geteuid() == 0:
        return found
    if (uid, gid) != (os.geteuid(), os.getegid()) or not set(found.groups) <= set(os.getgroups()):
        raise SpecError(
            "only an agent that runs as root can run workers as somebody else",
            where=_USERS,
            fix="remove securityContext, or run the agent as root",
        )
    return None


def _user(given: int | str) -> int:
    if isinstance(given, int) or given.isdigit():
        return int(given)
    try:
        return pwd.getpwnam(given).pw_uid
    except KeyError:
        raise SpecError(f"no user {given!r} on this device", where=_USERS, fix=f"useradd --system {given}") from None


def _primary_group(uid: int) -> int:
    """Somebody the device does not know has a group of the same number."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _group(given: int | str) -> int:
    if isinstance(given, int) or given.isdigit():
        return int(given)
    try:
        return grp.getgrnam(given).gr_gid
    except KeyError:
        raise SpecError(f"no group {given!r} on this device", where=_USERS, fix=f"groupadd --system {given}") from None
