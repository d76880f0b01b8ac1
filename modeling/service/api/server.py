"""The service on uvicorn."""

from __future__ import annotations

import ipaddress
import logging
import socket

import torch
import uvicorn

from modeling.service.api.app import Service, make_app
from schemas.errors import InputError, reason

GRACE_SECONDS = 30  # that requests under way are given when the service is to end
log = logging.getLogger("overnight.api")


def require_safe(host: str, keys: bool, without_keys: bool) -> None:
    """Raise InputError for an address that other machines reach, where nobody needs a key."""
    if keys or without_keys or is_loopback(host):
        return
    raise InputError(
        f"--host {host}: other machines reach that, and there is no key. Give --keys FILE (`overnight api --new-key NAME` "
        "makes a key), or --without-keys where something in front asks who it is."
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_server(service: Service, host: str, port: int, threads: int = 1) -> uvicorn.Server:
    """A server that is not running yet; `run()` runs it until SIGINT or SIGTERM, and answers what is under way first."""
    torch.set_num_threads(threads)
    config = uvicorn.Config(
        make_app(service),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any that is free.

    Raises:
        InputError: where it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # named, or asyncio sets no TCP_NODELAY: 40 ms
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise InputError(
            f"--host {host} --port {port}: cannot listen there ({reason(error)}). Give another port."
        ) from None
    found.set_inheritable(True)
    return found
