"""How much a request, and a key, may ask for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Limits of the service. What is beyond is answered by a 4xx that names the limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(2**20, ge=1, description="Of a request's body.")
    sessions: int = Field(100, ge=1, description="In one request.")
    events: int = Field(1000, ge=1, description="Of one session; a model reads the most recent ones.")
    items: int = Field(1000, ge=1, description="Of one list.")
    tracked: int = Field(1000, ge=1, description="Events in one request of POST /track.")
    rate: float = Field(0.0, ge=0, description="Requests a second for each key, on the average; 0: as many as come.")
    burst: int = Field(50, ge=1, description="Requests that may come at once before the rate counts.")
    waiting: int = Field(1000, ge=1, description="Requests that may wait; more are answered by 503.")
    batch: int = Field(64, ge=1, description="Sessions that are answered together.")
    seconds: float = Field(30.0, gt=0, description="After which a request that waits is given up, with 503.")
