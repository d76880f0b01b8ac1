"""URLs of sources: what may stand in one."""

from __future__ import annotations

import re

from schemas.errors import InputError

_NAME = re.compile(r"[?&]([^=&]+)=")  # of what a URL asks for
_SECRET = re.compile(
    r"(^|[-_.])(sig|key|token|secret|password|passwd|pwd|credential)s?($|[-_.])|signature|accesskey|apikey",
    re.IGNORECASE,
)


def refuse_secrets(url: str) -> None:
    """A source stands in the parameters of runs, in logs and in manifests, for all to read.

    Raises:
        InputError: when it holds a password, a key or a signature; these are not in the message.
    """
    scheme, _, rest = url.partition("://")
    address, mark, asked = rest.partition("?")
    user, at, host = address.rpartition("@")
    if ":" in user or any(map(_SECRET.search, _NAME.findall(mark + asked))):
        masked = f"{scheme}://{'***@' if at else ''}{host}{'?***' if mark else ''}"
        raise InputError(
            f"The source {masked} holds a password or a key, which would be kept with every run. Put it into the "
            "environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3, "
            f"FSSPEC_{scheme.upper()}_USERNAME, ..._PASSWORD and the like for what else fsspec opens."
        )
