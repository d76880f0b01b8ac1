"""One message a night to where people read them, when a night needs somebody: it failed, or its model did not take over.

$OVERNIGHT_WEBHOOK is the address, else Prefect's block `Secret` named overnight-webhook. It gets {"text": "..."} by POST, as
Slack and Mattermost take it. A message that cannot be delivered is a line in the log and never fails a night; the address is a
secret and in no line.
"""

import http.client
import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from prefect import runtime

ADDRESS = "OVERNIGHT_WEBHOOK"
BLOCK = "overnight-webhook"
SECONDS = 20.0  # to deliver a message
NO_ANSWER = "no answer in time"
NUM_WARNINGS = 5
Log = Callable[[str], object]
logger = logging.getLogger("prefect.flow_runs")


def notify_of_night(summary: dict[str, Any], log: Log) -> None:
    """Of a night that ran to its end: a message where its model did not take over, days or files are missing or late, or its
    day has warnings, as of drift.

    None of a night with nothing to do that nobody waits for, and of one that a backfill runs, which has a message of its own.
    """
    if (summary["nothing_to_do"] and not summary["late"]) or runtime.flow_run.parent_flow_run_id:
        return
    missing = list(summary["late"])
    missing += [f"Missing days: {', '.join(map(str, summary['missing_days']))}."] if summary["missing_days"] else []
    missing += [f"{len(summary['left_out'])} files were left out."] if summary["left_out"] else []
    if summary["promoted"] and not missing and not summary["warnings"]:
        return
    what = f"{'promoted' if summary['promoted'] else 'not promoted'}. {summary['verdict']}"
    what = "nothing new." if summary["nothing_to_do"] else what
    warnings = [f"Warning: {warning}." for warning in summary["warnings"][:NUM_WARNINGS]]
    more = len(summary["warnings"]) - NUM_WARNINGS
    warnings += [f"{more} more warnings are in the report."] if more > 0 else []
    head = f"Overnight, {summary['dataset']} {summary['test_day'] or ''}".rstrip()
    lines = [f"{head}: {what}", *missing, *warnings, f"Report: {summary['report']}"]
    send("\n".join([*lines, *_link(runtime.flow_run.id)]), log)


def notify_of_end(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook of flows that failed or crashed: a message with the state and why."""
    if flow_run.parent_task_run_id is None:
        about = f"Overnight, {_name_of(flow_run)} ({flow.name}): {state.name.lower()}. {state.message or ''}".rstrip()
        send("\n".join([about, *_link(str(flow_run.id))]), logger.warning)


def _name_of(flow_run: Any) -> str:
    """The name that a run has by now; where the server cannot say, the one that it began with."""
    from prefect.client.orchestration import get_client

    if not _has_server():
        return str(flow_run.name)
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run.id).name
    except Exception:  # a message without the day is better than none
        return str(flow_run.name)


def send(text: str, log: Log) -> None:
    """Send a message, where an address is set; `log` gets a line when it cannot be delivered."""
    address = (os.environ.get(ADDRESS) or _of_block()).strip()
    if not address:
        return
    if not address.lower().startswith(("http://", "https://")):
        log(
            f"The address of ${ADDRESS} (or of the block {BLOCK}) does not begin with http:// or https://: no message is sent."
        )
        return
    if reason := _deliver(address, json.dumps({"text": text}).encode()):
        log(f"The message about this run could not be delivered to ${ADDRESS} (or the block {BLOCK}): {reason}.")


def _deliver(address: str, body: bytes) -> str:
    """Why a message was not delivered; empty where it was. It is given up after `SECONDS` in all.

    The time limit of a connection is one for each step of it, and none for asking which machine a name is.
    """
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(_post(address, body)), daemon=True, name="message")
    thread.start()
    thread.join(SECONDS)
    return reasons[0] if reasons else NO_ANSWER


def _post(address: str, body: bytes) -> str:
    try:
        request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answers {error.code}" + (": it has moved, give its new address" if 300 <= error.code < 400 else "")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return NO_ANSWER
        return "it is no address" if isinstance(reason, str) else type(reason).__name__  # its text may hold the address


class _Stay(urllib.request.HTTPRedirectHandler):
    """A message that followed to another place would arrive there as a GET, without its text."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _of_block() -> str:
    from prefect.blocks.system import Secret

    if not _has_server():
        return ""
    try:
        block: Any = Secret.load(BLOCK)
    except Exception:  # no such block, or no server to ask: there is no address then
        return ""
    return str(block.get())


def _has_server() -> bool:
    """Whether there is one to ask: without an address Prefect would start one of its own."""
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def _link(run: str | None) -> list[str]:
    from prefect.settings import PREFECT_UI_URL

    url = PREFECT_UI_URL.value()
    return [f"{url}/runs/flow-run/{run}"] if url and run else []
