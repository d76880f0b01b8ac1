"""A month of a simulated shop through the real flow: 30 nights back to back, with what happens to sources and machines.

    python benchmarks/month.py                    30 nights, into docs/month.md and docs/month.svg
    python benchmarks/month.py --nights 8         a short one, printed

Every night is `flows.retrain`, as a schedule runs it, in this process and on one Prefect server; only when a night is due is
simulated. Each day's events come as a file before its night. What happens on the way is listed in `PLAN`. A model that is
never retrained, the first one, is measured on the same cases as the model that was in service when the day began. On Sundays
`overnight prune` removes what nothing needs.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from month_page import Night, write_page

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
SCRATCH = PROJECT / ".peers" / "scratch" / "month"
FIRST = date(2026, 3, 2)
HISTORY, NIGHTS = 7, 30  # days that are there before the first night; nights
USERS, WINDOW, RETENTION = 1_000, 10, 14  # people of the shop; days that a night reads; days that the source holds
KEPT_MODELS = 3
LATE_SHARE, HALF = 10, 16  # every tenth event is late; the hour after which half a day has no events
PLAN = {  # night: what happens; a share of the nights, so that a short month has all of it
    0.20: "missing",
    0.30: "corrupt",
    0.40: "late events",
    0.50: "killed",
    0.60: "catalogue",
    0.75: "half a day",
    0.90: "new column",
}
WORDS = {
    "missing": "the day's file never comes",
    "corrupt": "the day's file is cut in its middle; whole a day later",
    "late events": "a tenth of the events comes a day later",
    "killed": "SIGKILL while it trains, then run again",
    "catalogue": "the item table lacks every second item; whole a day later",
    "half a day": "events up to four o'clock; the rest a day later",
    "new column": "the events have one more column",
}


@dataclass
class Month:
    """The shop, its source, what nights made, and the model that is never retrained."""

    nights: int
    users: int
    rows: list[Night] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shop, self.source, self.root = (SCRATCH / name for name in ("shop", "source", "root"))
        self.plan: dict[int, str] = {}
        night = 1
        for share, what in PLAN.items():  # not in the first night, and one a night
            night = max(round(share * self.nights), night + 1)
            self.plan[night] = what
        self.frozen: Any = None

    def begin(self) -> None:
        """All events that will ever come, and the first days of them in the source."""
        from preprocessing.simulate import Shop, simulate

        shutil.rmtree(SCRATCH, ignore_errors=True)
        simulate(Shop(days=HISTORY + self.nights, users=self.users, start=FIRST), self.shop)
        (self.source / "events").mkdir(parents=True)
        shutil.copy(self.shop / "items.parquet", self.source)
        for number in range(HISTORY):
            self._comes(number)

    def run(self, night: int) -> None:
        """The night of a day: what comes to the source, the flow, and what the two models were worth on that day."""
        number, what = HISTORY + night - 1, self.plan.get(night, "")
        self._mend(self.plan.get(night - 1, ""), number - 1)
        self._comes(number, what)
        self._expire(number)
        before, began, cpu = self._in_service(), time.monotonic(), _cpu()
        if what == "killed":
            self._kill()
        state = self._night(FIRST + timedelta(days=number + 1))
        seconds, cpu = time.monotonic() - began, _cpu() - cpu
        if (FIRST + timedelta(days=number)).weekday() == 6:
            self._prune()
        self.rows.append(self._row(number, what, state, before, seconds, cpu))
        print(self.rows[-1].line(), flush=True)

    def _comes(self, number: int, what: str = "") -> None:
        import polars as pl

        name = f"{FIRST + timedelta(days=number)}.parquet"
        events, to = self.shop / "events" / name, self.source / "events" / name
        if what == "corrupt":
            to.write_bytes(events.read_bytes()[: events.stat().st_size // 2])
        elif what != "missing":
            rows = pl.read_parquet(events)
            if what == "late events":
                rows = rows.filter(pl.int_range(pl.len()) % LATE_SHARE != 0)
            if what == "half a day":
                rows = rows.filter(pl.col("timestamp").dt.hour() < HALF)
            if what == "new column":
                rows = rows.with_columns(campaign=pl.lit("spring"))
            rows.write_parquet(to)
        if what == "catalogue":
            items = pl.read_parquet(self.shop / "items.parquet")
            items.filter(pl.int_range(pl.len()) % 2 == 0).write_parquet(self.source / "items.parquet")

    def _mend(self, what: str, number: int) -> None:
        """What was wrong on a day is right on the next."""
        if what in ("corrupt", "late events", "half a day"):
            self._comes(number)
        if what == "catalogue":
            shutil.copy(self.shop / "items.parquet", self.source)

    def _expire(self, number: int) -> None:
        for file in (self.source / "events").iterdir():
            if date.fromisoformat(file.stem) <= FIRST + timedelta(days=number - RETENTION):
                file.unlink()

    def _night(self, due: date) -> Any:
        """The flow of a night that a schedule asked for at two o'clock."""
        from flows import retrain as module

        module.due_of_run = lambda: datetime(
            due.year, due.month, due.day, 2, tzinfo=UTC
        )  # the one thing that is not real
        return module.retrain(self._data(), return_state=True)

    def _data(self) -> Any:
        from flows.settings.settings import Data

        return Data(dataset="demo", source=str(self.source), root=self.root, days=WINDOW)

    def _kill(self) -> None:
        """The night as a command of its own, SIGKILLed with all that it started when it begins to train."""
        words = [sys.executable, "-m", "flows.cli", "retrain", "--dataset", "demo", "--source", str(self.source)]
        words += ["--root", str(self.root), "--days", str(WINDOW)]
        process = subprocess.Popen(
            words,
            cwd=PROJECT,
            env=os.environ | {"PREFECT_LOGGING_LEVEL": "INFO", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        for line in process.stdout:
            if "'train'" in line and "loss" in line:
                break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise SystemExit("the night that was to be killed ended before it trained")

    def _prune(self) -> None:
        from flows.prune import prune
        from schemas.artifacts import Artifacts

        prune(Artifacts(self.root), KEPT_MODELS, 0, remove=True, say=lambda line: None)

    def _in_service(self) -> Any:
        from modeling.evaluation.pointer import champion_of
        from schemas.artifacts import Artifacts

        artifacts = Artifacts(self.root)
        champion = champion_of(artifacts, "demo")
        return artifacts.get(champion.model) if champion else None

    def _row(self, number: int, what: str, state: Any, before: Any, seconds: float, cpu: float) -> Night:
        summary = state.result(raise_on_failure=False)
        failed = not isinstance(summary, dict)
        day, disk = FIRST + timedelta(days=number), _bytes(self.root) / 1e6
        tested = not failed and summary["test_day"] == str(day)
        said = (
            [state.message]
            if failed
            else [*summary["late"], *([] if summary["nothing_to_do"] else [summary["verdict"]])]
        )
        warnings = summary["warnings"] if tested else []
        outcome = "failed" if failed else self._outcome(summary) if tested else "nothing new"
        verdict, *warnings = (line.replace(f"{SCRATCH}/", "") for line in (" ".join(said), *warnings))
        row = Night(str(day), WORDS.get(what, ""), outcome, verdict, warnings, seconds=seconds, cpu=cpu, disk=disk)
        if not tested:
            return row
        if self.frozen is None:
            self._freeze()
        sessions = Path(summary["artifacts"]["sessions"]).name
        row.frozen = self._worth(self.frozen, sessions)
        row.champion = self._worth(before, sessions) if before else None
        return row

    def _outcome(self, summary: dict[str, Any]) -> str:
        from schemas.artifacts import Artifacts

        comparison = Path(summary["artifacts"]["comparisons"]).name
        facts = Artifacts(self.root).get(f"comparisons/{comparison}").facts
        unsure = facts.get("users_needed") is not None or "cannot tell" in facts["reason"]
        held = "held: cannot tell" if unsure else "held"
        outcome = {"promote": "promoted", "keep": "kept", "hold": held}[facts["verdict"]]
        guarded = any(row["holds"] for row in facts["guards"])
        return outcome + (" by guards" if outcome == "held" else ", and by guards") * guarded

    def _freeze(self) -> None:
        """Keep the first model where nothing prunes it."""
        first = self._in_service()
        if first:
            away = SCRATCH / "frozen" / first.name
            shutil.copytree(first.folder, away)
            self.frozen = first.model_copy(update={"root": str(SCRATCH / "frozen")})

    def _worth(self, model: Any, sessions: str) -> tuple[float, float, float, int] | None:
        """NDCG@20 of a model on the day's cases, its interval, and their number, as the night measures the model in service."""
        from modeling.config import EvaluationConfig
        from modeling.stages import evaluate
        from schemas.artifacts import Artifacts

        if model is None:
            return None
        artifacts = Artifacts(self.root)
        config = EvaluationConfig(baselines=(), lists=0)
        facts = evaluate(artifacts, model, artifacts.get(f"sessions/{sessions}"), config, lambda line: None).facts
        name = facts["model"]
        low, high = facts["intervals"]["metrics"][name]["ndcg@20"]
        return facts["metrics"][name]["ndcg@20"], low, high, facts["cases"]


def _cpu() -> float:
    """CPU seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _cpu_of_server() -> float:
    """CPU seconds of the processes below this one that still run: Prefect's server."""
    from flows.keeper import below

    ticks = 0
    for process in below(os.getpid()):
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _bytes(folder: Path) -> int:
    """What is below a folder; a file that several names lead to counts once."""
    files = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(files.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=NIGHTS)
    parser.add_argument("--users", type=int, default=USERS)
    given = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    os.environ["PREFECT_HOME"] = str(SCRATCH.parent / "month-prefect")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    month, began = Month(given.nights, given.users), time.monotonic()
    month.begin()
    from flows.server import prefect_server

    with prefect_server(print) as url:
        os.environ["PREFECT_API_URL"] = url  # for the night that is killed
        for night in range(1, given.nights + 1):
            month.run(night)
        server = _cpu_of_server()
    write_page(month.rows, time.monotonic() - began, server, given.users, whole=given.nights == NIGHTS)


if __name__ == "__main__":
    main()
