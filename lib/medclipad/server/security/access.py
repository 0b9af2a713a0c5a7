"""Who may do what: named tokens with roles.

A token file holds one token for each line:

    # name   role    token
    anna     label   6f3c...
    nightly  train   91ab...

A line with a token alone is one that may do everything.
"""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medclipad.errors import MedCLIPADError

TOKEN = "MEDCLIPAD_TOKEN"  # environment variable, so that no process list shows it
TOKEN_FILE = "MEDCLIPAD_TOKEN_FILE"
TOKEN_LENGTH = 16  # characters: too many to guess at the rate that the server allows
ROLES = ("read", "label", "train", "admin")
"""What a token may do, from least to most; each role includes those before it."""

_log = logging.getLogger(__name__)
_READING = {
    ("POST", "infer"),
    ("POST", "activelearning"),
    ("DELETE", "progress"),
    ("PUT", "session"),
    ("DELETE", "session"),
}
_ROLE_OF = {  # by method and start of the path; what is not named here needs the role admin
    "label": (
        ("PUT", "datastore/image"),
        ("PUT", "datastore/label"),
        ("DELETE", "datastore/label"),
        ("PUT", "marks"),
    ),
    "train": (("POST", "train"), ("DELETE", "train"), ("PUT", "versions")),
}


@dataclass(frozen=True)
class User:
    """Who sends a request.

    Attributes
    ----------
    name
        Name of the token, for the audit log.
    role
        One of `ROLES`.
    """

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Return whether this user's role includes another one."""
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = User("local", "admin")
"""Whoever uses this machine, where no token is set."""


class Tokens:
    """The tokens of a server. A token file is read again when it has changed: who is taken out is out at once.

    Parameters
    ----------
    tokens
        Token and user of each.
    token, file
        What they came from, as in `of`.
    """

    def __init__(self, tokens: Sequence[tuple[str, User]], token: str | None = None, file: Path | None = None) -> None:
        self._tokens = [(value.encode(), user) for value, user in tokens]
        self._token, self._file = token, file
        self._stamp = _stamp(file)

    def __bool__(self) -> bool:
        """Return whether there is any token."""
        return bool(self._tokens)

    def user(self, authorization: str) -> User | None:
        """Return the user whose token an Authorization header carries; None if it is nobody's.

        Every token is compared, in constant time, so that the time of an answer tells nothing.
        """
        self._follow_file()
        scheme, _, given = authorization.partition(" ")
        matches = [user for token, user in self._tokens if hmac.compare_digest(given.strip().encode(), token)]
        return matches[0] if matches and scheme.lower() == "bearer" else None

    @classmethod
    def of(cls, token: str | None, file: str | Path | None) -> Tokens:
        """Return the tokens that an option and a file give.

        Parameters
        ----------
        token
            Token that may do everything; None for none.
        file
            Token file; None for none.

        Raises
        ------
        MedCLIPADError
            If a token is too short, or the file cannot be read or holds something else.
        """
        tokens = [(token, User("token", "admin"))] if token else []
        file = Path(file) if file else None
        stamp = _stamp(file)  # before it is read, so that a change meanwhile is seen
        if file:
            tokens += _read(file)
            if not tokens:
                raise MedCLIPADError(f"The token file {file} holds no token: write one to it, or leave it out.")
        for value, _ in tokens:
            if len(value) < TOKEN_LENGTH or not value.isascii() or not value.isprintable():
                raise MedCLIPADError(f"A token must have at least {TOKEN_LENGTH} printable ASCII characters.")
        if len({value for value, _ in tokens}) < len(tokens):
            raise MedCLIPADError("Two users have the same token: give each one of their own.")
        found = cls(tokens, token, file)
        found._stamp = stamp
        return found

    @classmethod
    def from_environment(cls) -> Tokens:
        """Return the tokens that the environment names; MEDCLIPAD_TOKEN is removed, as child processes inherit it."""
        return cls.of(os.environ.pop(TOKEN, None), os.environ.get(TOKEN_FILE))

    def _follow_file(self) -> None:
        """Read the token file again if it is another one than before; the tokens stay if it cannot be used."""
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = Tokens.of(self._token, self._file)._tokens
        except MedCLIPADError:  # its sentence names the file, which no log does
            _log.warning("The token file has changed, but cannot be used: all tokens stay as they were.")


def _stamp(file: Path | None) -> tuple[int, ...] | None:
    """Return what changes with a file's content; None if there is no file."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(file: Path) -> list[tuple[str, User]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise MedCLIPADError(
            f"The token file {file} cannot be read ({reason}): check its path and permissions."
        ) from error
    tokens = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) == 1:
            tokens.append((words[0], User("token", "admin")))
        elif len(words) == 3 and words[1] in ROLES:
            tokens.append((words[2], User(words[0], words[1])))
        else:
            raise MedCLIPADError(
                f"Line {number} of the token file {file} must hold a name, a role ({', '.join(ROLES)}) and a token."
            )
    return tokens


def required_role(method: str, path: str) -> str:
    """Return the role that a request needs.

    Parameters
    ----------
    method
        HTTP method.
    path
        Path of the request, such as "/datastore/label".

    Examples
    --------
    >>> required_role("GET", "/info/"), required_role("PUT", "/datastore/label"), required_role("PUT", "/new")
    ('read', 'label', 'admin')
    """
    parts = path.strip("/").split("/")
    if method in ("GET", "HEAD", "OPTIONS") or (method, parts[0]) in _READING:
        return "read"
    for role, rules in _ROLE_OF.items():
        if any(method == verb and parts[: start.count("/") + 1] == start.split("/") for verb, start in rules):
            return role
    return "admin"
