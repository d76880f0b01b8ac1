"""Which of two models answers a user: the same one every time, by a hash, as long as the salt stays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

A, B = "a", "b"  # the model in service, and the second one


@dataclass(frozen=True)
class Split:
    """`share` of the users get the second model; another `salt` draws other users."""

    share: float
    salt: str = ""

    def arm(self, user: str) -> str:
        """a or b."""
        digest = hashlib.sha256(f"{self.salt}\0{user}".encode("utf8", "replace")).digest()
        return B if int.from_bytes(digest[:8], "big") < self.share * 2**64 else A
