"""TraceTally: of how many requests the traces were sent, and of how many they were lost. Pure."""

from __future__ import annotations

import enum
from collections import Counter


class Loss(enum.Enum):
    """Why. `QUEUE_FULL`: the collector was too slow, or gone for too long; `REFUSED`: it does not
    want them; `STOPPED`: they were left when the gateway stopped."""

    QUEUE_FULL = "queue_full"
    REFUSED = "refused"
    STOPPED = "stopped"


class TraceTally:
    """Counted are requests."""

    def __init__(self) -> None:
        self.sent = 0
        self.lost: Counter[Loss] = Counter()
