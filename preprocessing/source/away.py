"""Whether a source that could not be read may answer at the next try, or something is wrong with a file, a name or a right.

503 of an object store, a connection that was refused or reset, a network disk that does not answer    ->  AwayError
403, 404, a damaged file, a missing column                                                             ->  InputError
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from schemas.errors import AwayError, InputError, reason
from schemas.machine import OF_LIBRARIES, PASSING

NUMBERS = {
    *PASSING,
    *(errno.EAGAIN, errno.EBUSY, errno.EPIPE, getattr(errno, "EREMOTEIO", errno.EIO)),
    *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH),
}
"""Of the system; those of s3fs for answers of 5xx are among them."""
NAMES = {
    *("ConnectionError", "TimeoutError", "IncompleteRead"),  # of Python and botocore
    *("HTTPClientError", "ClientConnectionError", "ClientPayloadError"),  # of botocore and aiohttp
    *("ServiceRequestError", "ServiceResponseError"),  # of azure.core
}
"""Classes of errors, by name: the packages of stores need not be installed."""
OF_POLARS = re.compile(
    r"Generic \w+ error: .*?(after \d+ retries|HTTP error: (?!builder)|status code: (408|429|5\d\d)\b)"
)
RAISED = re.compile(r"exception: (InputError|AwayError): ")  # how Polars repeats what was raised while a plan ran


def is_away(error: BaseException) -> bool:
    """Whether what was tried may succeed at the next try: by the answer of a store, the system's number, or the class."""
    for answer in (error, error.__cause__):
        if (status := _status(answer)) is not None:
            return status in (408, 429) or status >= 500
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in NUMBERS
    if NAMES & {kind.__name__ for kind in type(error).__mro__}:
        return True
    number = OF_LIBRARIES.search(str(error))
    return bool(number and int(number[1] or number[2]) in NUMBERS) or bool(OF_POLARS.search(str(error)))


@contextmanager
def answering(place: object) -> Iterator[None]:
    """For what reads from a place.

    Raises:
        AwayError: in place of an error with which the place does not answer for a moment. All else is as it was.
    """
    try:
        yield
    except (InputError, AwayError):
        raise
    except Exception as error:
        raised = RAISED.search(str(error))
        if raised and raised[1] == AwayError.__name__:
            raise AwayError(without_plan(str(error)[raised.end() :])) from None
        if raised or not is_away(error):
            raise
        raise AwayError(f"{place}: does not answer ({reason(error).partition(chr(10))[0]}). Try again later.") from None


def without_plan(raised: str) -> str:
    """What was raised while a plan ran, without the expression or the plan that Polars shows behind it."""
    return raised.partition("\n\nThis error occurred")[0].strip()


def _status(error: Any) -> int | None:
    """The status of a store's answer over HTTP, where the error holds one."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore's ClientError
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for name in ("status_code", "code"):  # of azure.core and gcsfs
        if str(given := getattr(error, name, "")).isdecimal():
            return int(given)
    return None
