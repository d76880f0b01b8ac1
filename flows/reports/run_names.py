"""What runs are called in Prefect's UI: by dataset and day, unless a person gave a name."""

from typing import Any, cast

from coolname.data import config
from prefect import runtime
from prefect.client.orchestration import get_client

PARTS = cast(dict[str, dict[str, Any]], config).values()  # of the names that Prefect invents
WORDS = frozenset(word for part in PARTS for word in part.get("words", ()))


def name_run(name: str) -> None:
    """Call the flow run that is under way `name`, where Prefect invented the name it began with. Without a run, nothing."""
    begun_as = runtime.flow_run.name
    if begun_as and is_invented(begun_as):
        with get_client(sync_client=True) as client:
            client.update_flow_run(runtime.flow_run.id, name=name)


def is_invented(name: str) -> bool:
    """Whether a name is two words of Prefect's lists: giga-oriole."""
    parts = name.split("-")
    return len(parts) >= 2 and WORDS.issuperset(parts)
