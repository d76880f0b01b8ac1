"""Keys of the service: a file or a variable holds their names and SHA-256 digests, never the keys themselves.

    shop:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

A key is 256 random bits, which no digest has to slow down the guessing of.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from schemas.errors import InputError, reason

VARIABLE = "OVERNIGHT_API_KEYS"
LINE = re.compile(r"(?P<name>[\w.-]+)\s*:\s*(?P<digest>[0-9a-f]{64})")
PREFIX = "ovn_"


class Keys:
    """Names by digest; of a file read again when it changes, so that a key is added or withdrawn without a restart."""

    def __init__(self, file: Path | None = None, text: str = "") -> None:
        """Raises InputError for a file that cannot be read, and lines that are none."""
        self.file = file
        self._text = text
        self._stamp = _stamp(file)
        self._names = self._read()

    @classmethod
    def of_environment(cls, file: Path | None) -> Keys:
        """Those of a file and those of $OVERNIGHT_API_KEYS, where lines may be separated by commas."""
        return cls(file, os.environ.get(VARIABLE, "").replace(",", "\n"))

    def __bool__(self) -> bool:
        return self.file is not None or bool(self._names)

    def refresh(self) -> bool:
        """Read the file again if it has changed; whether it did.

        Raises:
            InputError: when it cannot be read now; the keys of before stay.
        """
        stamp = _stamp(self.file)
        if stamp == self._stamp:
            return False
        self._names, self._stamp = self._read(), stamp
        return True

    def name_of(self, key: str) -> str | None:
        """Whose key this is; None where it is nobody's."""
        digest = digest_of(key)
        found = None
        for known, name in self._names.items():  # all of them: the time says nothing of which
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _read(self) -> dict[str, str]:
        places = [(f"${VARIABLE}", self._text)]
        if self.file is not None:
            try:
                places.append((str(self.file), self.file.read_text(encoding="utf8")))
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"--keys {self.file}: it cannot be read ({reason(error)}). Give a file of NAME:DIGEST lines."
                ) from None
        return {digest: name for place, text in places for name, digest in _lines(text, place)}


def digest_of(key: str) -> str:
    """The SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode("utf8", "replace")).hexdigest()


def new_key(name: str) -> tuple[str, str]:
    """A new key, and the line that a file of keys holds of it.

    Raises:
        InputError: for a name that such a line cannot hold.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"A key's name is letters, digits, '.', '-' and '_', got {name!r}.")
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name}:{digest_of(key)}"


def _lines(text: str, where: str) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = LINE.fullmatch(line)
        if match is None:  # the line itself is not repeated: somebody may have put a key there
            raise InputError(
                f"{where}: line {number} is no NAME:DIGEST with a SHA-256 of 64 hexadecimal digits. "
                "`overnight api --new-key NAME` makes a key and its line."
            )
        found.append((match["name"], match["digest"]))
    return found


def _stamp(file: Path | None) -> tuple[int, int] | None:
    try:
        about = file.stat() if file is not None else None
    except OSError:
        return None
    return (about.st_mtime_ns, about.st_size) if about else None
