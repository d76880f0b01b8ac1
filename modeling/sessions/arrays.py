"""Sessions as flat arrays.

Shapes: S sessions, E events, W values of an event that has many.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from modeling.sessions.past import GAP, Past
from schemas.columns import FIRST_ID, ITEM_ID

DAY_MICROSECONDS = 86_400_000_000


@dataclass(frozen=True)
class Sessions:
    """S sessions over flat event arrays: session s holds the events starts[s] .. starts[s] + lengths[s] - 1.

    `events` maps each feature to a tensor of shape [E], or [E, W] where an event has many values (0: none); `context` maps
    each feature per session to one of shape [S]. `end` is the time of the last event in microseconds (0: unknown). Labels,
    [E] and [S], are float32, NaN where there is none. Selecting sessions and hiding their last items move the bounds and
    share the events.

    `past` says which earlier events of its user are read before each session; None: none. They are only read: what is counted,
    predicted or hidden belongs to the session itself.

    Where last events are hidden, `following` is the event after those left. For a model that reads when it is asked, `time` is
    the feature of seconds since the previous event, and `asked` how many seconds after the last event that is, float64 of [S];
    NaN where nobody says.
    """

    events: dict[str, Tensor]
    starts: Tensor
    lengths: Tensor
    end: Tensor
    context: dict[str, Tensor] = field(default_factory=dict)
    event_labels: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)
    past: Past | None = None
    following: Tensor | None = None
    time: str | None = None
    asked: Tensor | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def items(self) -> Tensor:
        """Item ids of all events, shape [E]."""
        return self.events[ITEM_ID]

    @property
    def num_events(self) -> int:
        """Events of the sessions selected."""
        return int(self.lengths.sum())

    @property
    def places(self) -> Tensor:
        """How many events are read of each session: past ones and its own, shape [S]."""
        return self.lengths if self.past is None else self.past.lengths + self.lengths

    def select(self, index: Tensor) -> Sessions:
        """Only the sessions at `index` (positions or a boolean mask), in that order."""
        positions = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return replace(
            self,
            starts=self.starts[positions],
            lengths=self.lengths[positions],
            end=self.end[positions],
            context={name: values[positions] for name, values in self.context.items()},
            labels={name: values[positions] for name, values in self.labels.items()},
            past=self.past.select(positions) if self.past else None,
            following=None if self.following is None else self.following[positions],
            asked=None if self.asked is None else self.asked[positions],
        )

    def emptied(self, keep_S: Tensor) -> Sessions:
        """The same number of sessions; of those that are not kept, no event is read."""
        past = replace(self.past, lengths=self.past.lengths * keep_S) if self.past else None
        return replace(self, lengths=self.lengths * keep_S, past=past)

    def without(self, left_out: Sessions) -> Sessions:
        """These sessions with nothing in their past of sessions left out, nor of what came before those."""
        if self.past is None or left_out.past is None:
            return self
        return replace(self, past=self.past.since(left_out.past))

    def forgetting(self, count: int) -> Sessions:
        """These sessions, with the last `count` events of each of them in no past."""
        if self.past is None:
            return self
        session_E, event_E = self.event_index()
        hidden = event_E >= (self.starts + self.lengths - count)[session_E]
        keep_E = torch.ones(len(self.items), dtype=torch.bool, device=self.items.device)
        keep_E[event_E[hidden]] = False
        return replace(self, past=self.past.only(keep_E))

    def drop_last(self, count: int) -> Sessions:
        """Without the last `count` events of each session."""
        lengths = (self.lengths - count).clamp(min=0)
        return replace(self, lengths=lengths, following=self.starts + lengths)

    def since(self, event: Tensor, time: str) -> Tensor:
        """Seconds from the user's previous event to each of these, float64: by the feature `time`, and between sessions GAP."""
        seconds = self.events[time][event].double()
        return seconds + (self.events[GAP][event].double() - 1).clamp(min=0) if GAP in self.events else seconds

    def most_recent(self, count: int, with_past: int | None = None) -> Sessions:
        """The last `count` events of each session at most; with as much of the past as makes `with_past` (else `count`)."""
        extra = (self.lengths - count).clamp(min=0)
        lengths = self.lengths - extra
        past = self.past.at_most((count if with_past is None else with_past) - lengths) if self.past else None
        return replace(self, starts=self.starts + extra, lengths=lengths, past=past)

    def keep(self, keep_E: Tensor, since: str | None = None, keep_past_P: Tensor | None = None) -> Sessions:
        """Only some events, given for all events in the order of `event_index`; of past ones (None: all) in that of the past.

        The feature `since`, seconds since the previous event, grows by those of the events left out, and so do GAP and `asked`.
        """
        session_E, event_E = self.event_index()
        lengths = torch.zeros_like(self.lengths).scatter_add_(0, session_E, keep_E.long())
        if self.past is None:
            read_E, kept_E, starts, past = event_E, keep_E, lengths.cumsum(0) - lengths, None
        else:
            session_P, event_P = self.past.index()
            keep_P = torch.ones_like(event_P, dtype=torch.bool) if keep_past_P is None else keep_past_P
            by_session = torch.cat([session_P, session_E]).argsort(stable=True)
            read_E, kept_E = torch.cat([event_P, event_E])[by_session], torch.cat([keep_P, keep_E])[by_session]
            past_lengths = torch.zeros_like(self.lengths).scatter_add_(0, session_P, keep_P.long())
            upto = (past_lengths + lengths).cumsum(0)
            starts, order = upto - lengths, torch.arange(int(kept_E.sum()), device=upto.device)
            past = Past(order, starts, upto, starts - past_lengths, past_lengths)
        asked = self.asked
        if asked is None and self.following is not None and since is not None:
            asked = self.since(self.following.clamp(max=len(self.items) - 1), since)
        if asked is not None and since is not None:
            upto_E = self.since(read_E, since).cumsum(0)
            end_S = self.places.cumsum(0) - 1
            place_E = torch.arange(len(read_E), device=end_S.device)
            session_of_E = torch.repeat_interleave(self.places)
            last_S = torch.zeros_like(end_S).scatter_reduce_(0, session_of_E, place_E * kept_E, "amax")
            asked = asked + upto_E[end_S] - upto_E[last_S]
        return replace(
            self,
            asked=asked,
            following=None,
            events={
                name: _growing(values[read_E], kept_E) if name in (since, GAP) else values[read_E][kept_E]
                for name, values in self.events.items()
            },
            event_labels={name: values[read_E][kept_E] for name, values in self.event_labels.items()},
            starts=starts,
            lengths=lengths,
            past=past,
        )

    def most_apart(self, elapsed: str) -> float:
        """The most seconds between the first and the last event that are read of a session, by the feature of seconds since the
        previous one.
        """
        upto_E = torch.nn.functional.pad(self.events[elapsed].double().cumsum(0), (1, 0))
        some = self.select(self.lengths > 0)
        last_S = some.starts + some.lengths
        if not len(some):
            return 0.0
        if some.past is None:
            return float((upto_E[last_S] - upto_E[some.starts + 1]).max())
        order = some.past.order.long()
        since_E = self.events[elapsed][order].double() + (self.events[GAP][order].double() - 1).clamp(min=0)
        upto_E = torch.nn.functional.pad(since_E.cumsum(0), (1, 0))
        first_S = torch.where(some.past.lengths > 0, some.past.starts, some.past.own)
        return float((upto_E[some.past.own + some.lengths] - upto_E[first_S + 1]).max())

    def item_from_end(self, place: int) -> Tensor:
        """The item `place` places before the last of each session, shape [S]."""
        return self.items[self.starts + self.lengths - 1 - place].long()

    def item_counts(self, num_items: int) -> Tensor:
        """Events of each item of the catalogue, int64 of shape [num_items]; column v is item id v + 3."""
        _, event = self.event_index()
        column = self.items[event].long() - FIRST_ID
        return torch.bincount(column[(column >= 0) & (column < num_items)], minlength=num_items)

    def events_read(self) -> Tensor:
        """Every event that is read of these sessions, their own and past ones: some may be twice."""
        _, event = self.event_index()
        return event if self.past is None else torch.cat([event, self.past.events()])

    def seen_index(self) -> tuple[Tensor, Tensor]:
        """(session, event) of what a history holds: its own events, or where it has none those of its past."""
        session, event = self.event_index()
        if self.past is None or bool((self.lengths > 0).all()):
            return session, event
        past_session, past_event = self.past.index()
        alone = self.lengths[past_session] == 0
        return torch.cat([session, past_session[alone]]), torch.cat([event, past_event[alone]])

    def event_index(self) -> tuple[Tensor, Tensor]:
        """(session, event) of every event of these sessions: two tensors of shape [num_events]."""
        session = torch.repeat_interleave(self.lengths)
        first = self.lengths.cumsum(0) - self.lengths
        place = torch.arange(len(session), device=session.device) - first[session]
        return session, self.starts[session] + place

    def to(self, device: torch.device | str) -> Sessions:
        """The same sessions with their arrays on `device`."""
        return replace(
            self,
            events={name: values.to(device) for name, values in self.events.items()},
            starts=self.starts.to(device),
            lengths=self.lengths.to(device),
            end=self.end.to(device),
            context={name: values.to(device) for name, values in self.context.items()},
            event_labels={name: values.to(device) for name, values in self.event_labels.items()},
            labels={name: values.to(device) for name, values in self.labels.items()},
            past=self.past.to(device) if self.past else None,
            following=None if self.following is None else self.following.to(device),
            asked=None if self.asked is None else self.asked.to(device),
        )


def _growing(values_E: Tensor, kept_E: Tensor) -> Tensor:
    """The values kept, each with those that were left out right before it; sums of float64."""
    upto_E = values_E.double().cumsum(0)[kept_E]
    return torch.cat([upto_E[:1], upto_E.diff()]).to(values_E.dtype)
