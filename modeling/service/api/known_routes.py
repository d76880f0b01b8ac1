"""The routes there are, in words, and the path that other services have their description at."""

from __future__ import annotations

import re

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.routing import Route

PARAMETER = re.compile(r"{(\w+)[^}]*}")


def routes_of(app: FastAPI) -> str:
    """All routes, each with its method: POST /recommend, GET /users/ID, ..., GET / (a page to try them)."""
    known = [
        f"{method} {PARAMETER.sub(lambda name: name[1].upper(), route.path)}"
        for route in app.routes
        if isinstance(route, Route) and route.path not in ("/", "/docs")
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
    return ", ".join([*dict.fromkeys(known), "GET / (a page to try them)"])


def add_docs(app: FastAPI) -> None:
    """`/docs` leads to the page, which shows the description and asks nothing of other machines."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> RedirectResponse:
        return RedirectResponse("./", 307)
