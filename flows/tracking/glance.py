"""Whether MLflow's alias is where it was put, without importing MLflow: that takes longer than a night with nothing to do."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from flows.tracking.target import Target

ALIAS = "champion"
SECONDS = 3.0
QUERY = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
PATH = "api/2.0/mlflow/registered-models/alias"


class UnknownError(Exception):
    """It cannot be said from here."""


def version_of_alias(target: Target, dataset: str) -> int | None:
    """The version that has the alias now; None where none has.

    Raises:
        UnknownError: for a database that is no SQLite file below the root, and for a server that does not say.
    """
    if target.registry != target.uri:
        raise UnknownError(target.name)
    if target.database:
        return _in_file(target.database, dataset)
    if target.is_server:
        return _at_server(target.uri, dataset)
    raise UnknownError(target.name)


def _in_file(path: Path, dataset: str) -> int | None:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=SECONDS)
        try:
            found = connection.execute(QUERY, (dataset, ALIAS)).fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise UnknownError(str(error)) from None
    return int(found[0]) if found else None


def _at_server(uri: str, dataset: str) -> int | None:
    parts = urllib.parse.urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    asked = urllib.parse.urlencode({"name": dataset, "alias": ALIAS})
    address = f"{parts.scheme}://{host}{parts.path.rstrip('/')}/{PATH}?{asked}"
    request = urllib.request.Request(address, headers=_credentials(parts))
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(json.load(answer)["model_version"]["version"])
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        if error.code in (400, 404) and ("INVALID_PARAMETER_VALUE" in text or "RESOURCE_DOES_NOT_EXIST" in text):
            return None
        raise UnknownError(str(error.code)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownError(type(error).__name__) from None


def _credentials(parts: urllib.parse.SplitResult) -> dict[str, str]:
    """As MLflow's client has them: a token, or a user and a password."""
    user = urllib.parse.unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = urllib.parse.unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    return {"Authorization": f"Bearer {token}"} if token else {}
