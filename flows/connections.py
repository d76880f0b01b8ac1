"""Addresses of databases by a name: they hold passwords, so they stand in the environment or in a Secret block of Prefect."""

from __future__ import annotations

import os

from schemas.errors import InputError


def url_of(name: str) -> str:
    """The URL of the database that a dataset or `--to` calls `name`: $SHOP_DB, else Prefect's Secret block shop-db.

    Raises:
        InputError: when neither is there.
    """
    if url := os.environ.get(name, "").strip():
        return url
    block = name.lower().replace("_", "-")
    if url := _of_block(block):
        return url
    raise InputError(
        f"Where is the database {name}? Set the environment variable {name} to its URL, such as "
        f"postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, for the worker too; or save a Secret block {block} in Prefect."
    )


def _of_block(block: str) -> str:
    from prefect.blocks.system import Secret
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():  # Prefect would start a server of its own
        return ""
    try:
        secret: object = Secret.load(block).get()  # type: ignore[union-attr]
    except Exception:  # no such block, or no server to ask
        return ""
    return str(secret).strip()
