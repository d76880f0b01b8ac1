"""What is counted, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SESSIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        name = "overnight_api_"
        self.requests = Counter(
            f"{name}requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            f"{name}request_seconds",
            "From a request's arrival to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            f"{name}batch_sessions", "Sessions answered together.", buckets=SESSIONS, registry=registry
        )
        self.waiting = Gauge(f"{name}waiting_requests", "Requests that wait for the model.", registry=registry)
        self.items = Counter(
            f"{name}items", "Items recommended, by where they come from.", ["source"], registry=registry
        )
        self.answers = Counter(
            f"{name}answers",
            "Lists given to users, by model; arm is empty where no two are compared.",
            ["arm", "model"],
            registry=registry,
        )
        self.tracked = Counter(
            f"{name}tracked_events", "Events of POST /track on the disk.", ["event"], registry=registry
        )
        self.untracked = Counter(f"{name}track_errors", "Events of POST /track that were refused.", registry=registry)
        self.unwritten = Counter(
            f"{name}track_write_failures",
            "Requests of POST /track, and answers, that could not be written.",
            registry=registry,
        )
        self.second = Gauge(
            f"{name}side_by_side", "1 while a second model answers a share of the users.", registry=registry
        )
        self.faults = Counter(f"{name}session_errors", "Sessions that could not be read.", registry=registry)
        self.loads = Counter(f"{name}model_loads", "Models put into use.", registry=registry)
        self.failures = Counter(
            f"{name}model_load_failures", "Times that the model by the pointer could not be loaded.", registry=registry
        )
        self.current = Gauge(
            f"{name}model_current", "1 while the model answering is the one by the pointer.", registry=registry
        )
        self.info = Gauge(f"{name}model_info", "1 for the model that answers.", ["model"], registry=registry)
        self.created = Gauge(
            f"{name}model_created_timestamp_seconds", "When the model that answers was made.", registry=registry
        )

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)
