"""The scheduler's vocabulary: what it knows about a variant, the events in, the actions out."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.elsewhere_events import ElsewhereEvent
from trio_gateway.engine.scheduling.memory_events import (
    Look,
    MemorySeen,
    Yield,
    YieldEnded,
    YieldOver,
    YieldReady,
)
from trio_gateway.engine.scheduling.progress import AnswerProgress


class VariantKey(NamedTuple):
    """Names one variant of the configuration."""

    model: str
    variant: str

    def __str__(self) -> str:
        return f"{self.model}:{self.variant}"


class VariantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler knows of a variant. `context` is in tokens; `parallel` None: not known
    before the engine says so. `endpoint`: the fixed address, or None where a port is picked.

    `memory_bytes`: what the configuration declares, or an estimate, which gives way to what is
    measured; None: not known. `load_time_s` is a guess until a load was measured, and not even
    that unless `load_time_known`. `longest_answer_s`: an answer is ended after this long, while
    others wait for its place; infinite: never. `devices`: of a pool that has some, so many.
    """

    key: VariantKey
    pool: str
    context: int
    parallel: int | None = None
    endpoint: str | None = None
    idle_timeout_s: float = 300.0
    pinned: bool = False
    memory_bytes: int | None = None
    memory_declared: bool = False
    load_time_s: float = 10.0
    load_time_known: bool = True
    longest_answer_s: float = math.inf
    devices: int = 1


class Refusal(enum.Enum):
    """Why a ticket was rejected."""

    QUEUE_FULL = enum.auto()
    QUEUE_TIMEOUT = enum.auto()
    START_FAILED = enum.auto()
    START_TIMEOUT = enum.auto()
    BACK_OFF = enum.auto()
    SHUTTING_DOWN = enum.auto()
    TOO_LARGE = enum.auto()
    UNLOADED = enum.auto()
    UNAVAILABLE = enum.auto()  # what the engine runs on is not there, or has no room
    MODEL_GONE = enum.auto()  # the configuration has it no more


# -- events ---------------------------------------------------------------------------------


class TicketArrived(msgspec.Struct, frozen=True):
    """A request wants an engine of `model` that holds `need` tokens. Tickets are numbered in the
    order of their arrival.

    `start_need`: tokens that an engine should hold that is started for it, the need and room to
    grow; as the need, if it is less. An engine that runs or starts already serves by `need`.

    `read_bytes`: the size of a request for which nothing is generated, such as embeddings; None:
    something is. `progress`: how far its answer is, if that can be told.
    `least_need`: what the need may turn out to be once an engine counts it; None: it is exact, or
    no engine can say.
    """

    ticket: int
    model: str
    need: int
    client: str = ""
    priority: Priority = Priority.INTERACTIVE
    start_need: int = 0
    read_bytes: int | None = None
    least_need: int | None = None
    progress: AnswerProgress | None = None


class Recounted(msgspec.Struct, frozen=True):
    """What was found out for a CountAgain. `need` None: nothing; what is known has to do."""

    ticket: int
    need: int | None
    start_need: int = 0


class TicketGone(msgspec.Struct, frozen=True):
    """The client left while its ticket waited."""

    ticket: int


class EngineReady(msgspec.Struct, frozen=True):
    """`slots`: requests at a time; `context`: tokens that one request really gets.

    `shared_tokens`: tokens that all its requests together get; None: each has its own context.
    """

    engine: int
    slots: int
    context: int
    shared_tokens: int | None = None


class EngineFailed(msgspec.Struct, frozen=True):
    """The start came to nothing; the process is gone. `unavailable`: what it runs on is not there,
    or has no room, but may have it in a while."""

    engine: int
    reason: str
    timed_out: bool = False
    output: tuple[str, ...] = ()  # its last lines
    unavailable: bool = False


class EngineExited(msgspec.Struct, frozen=True):
    """It is gone, as asked or by itself, for the reason given. `asleep`: with its machine."""

    engine: int
    reason: str = ""
    output: tuple[str, ...] = ()  # its last lines
    asleep: bool = False


class EngineMeasured(msgspec.Struct, frozen=True):
    """What the engine's processes held at most so far."""

    engine: int
    memory_bytes: int


class LeaseReturned(msgspec.Struct, frozen=True):
    """The request that this ticket was granted for is done."""

    ticket: int


class Unload(msgspec.Struct, frozen=True):
    """The model's engines are to end, each once its leases are back. `force`: those that wait for
    it are refused as well."""

    model: str
    force: bool = False


class Keep(msgspec.Struct, frozen=True):
    """How long the model's engines stay loaded from now on.

    `idle_timeout_s` None: as configured. `pinned`: they make way for others last.
    """

    model: str
    idle_timeout_s: float | None = None
    pinned: bool = False


class Reconfigured(msgspec.Struct, frozen=True, kw_only=True):
    """These are the variants now, sorted by context within each model, these the pools, and these
    the limits for all tickets.

    `changed`: variants whose engines would be started otherwise now. What was learned of them is
    forgotten, and their engines finish what runs, then go, as those of variants that are gone.
    """

    variants: tuple[VariantFacts, ...]
    pools: Mapping[str, PoolConfig]
    changed: frozenset[VariantKey] = frozenset()
    queue_limit: int = 256
    queue_timeout_s: float = 600.0
    fairness_window_s: float = 10.0


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier runs have measured of one variant; None: nothing.

    `memory_bytes`: the most that its engines held. `slots`, `shared_tokens`: as in EngineReady.
    Speeds are tokens a second.
    """

    memory_bytes: int | None = None
    load_s: float | None = None
    wake_s: float | None = None
    slots: int | None = None
    shared_tokens: int | None = None
    prompt_speed: float | None = None
    speed: float | None = None


class Remembered(msgspec.Struct, frozen=True):
    """This was measured in earlier runs. What this run has measured by itself stays as it is. Of
    variants of one model, the first tells how fast it is."""

    known: Mapping[VariantKey, Known]


class TimePassed(msgspec.Struct, frozen=True):
    """`Scheduler.wakes_at` has come."""


class ShutDown(msgspec.Struct, frozen=True):
    """No new work; engines stop as soon as their leases are back."""


Event = (
    TicketArrived
    | Recounted
    | TicketGone
    | EngineReady
    | EngineFailed
    | EngineExited
    | EngineMeasured
    | ElsewhereEvent
    | MemorySeen
    | Yield
    | YieldOver
    | LeaseReturned
    | Unload
    | Keep
    | Reconfigured
    | Remembered
    | TimePassed
    | ShutDown
)

# -- actions --------------------------------------------------------------------------------


class How(enum.Enum):
    """How a ticket came by its engine; the values are those of `X-Gateway-Decision`."""

    REUSED = "reused"
    STARTED = "started"
    SWAPPED = "swapped"

    __hash__ = object.__hash__  # enum's own is a Python function


class Grant(msgspec.Struct, frozen=True):
    """`evicted`: what was stopped to make room for the engine that the ticket waited for."""

    ticket: int
    engine: int
    how: How
    evicted: tuple[VariantKey, ...] = ()


class Start(msgspec.Struct, frozen=True):
    """`devices`: those of its pool that it is to use; none: as it likes."""

    engine: int
    variant: VariantKey
    reason: str
    devices: tuple[str, ...] = ()


class Cause(enum.Enum):
    """Why an engine has to go; `reason` says it in words."""

    SWAP = "swap"
    IDLE = "idle"
    UNLOAD = "unload"
    MEMORY = "memory"  # the pool's engines are larger than was known, or others took memory
    YIELD = "yield"  # another program is to have its memory
    UNWANTED = "unwanted"  # the requests that it was started for are gone
    RELOAD = "reload"  # the configuration has it otherwise, or no more, or less room for it
    SHUTDOWN = "shutdown"


class Drain(msgspec.Struct, frozen=True):
    """No new leases; a Stop follows when the last lease is back."""

    engine: int
    reason: str
    cause: Cause = Cause.SWAP


class Resume(msgspec.Struct, frozen=True):
    """A draining engine takes leases again: its room is no longer needed."""

    engine: int
    reason: str


class Stop(msgspec.Struct, frozen=True):
    engine: int
    reason: str
    cause: Cause = Cause.SWAP


class EndAnswer(msgspec.Struct, frozen=True):
    """The answer has taken `longest_answer_s`, and others wait: it ends as if it had come to its
    maximum."""

    ticket: int
    engine: int
    after_s: float


class Reject(msgspec.Struct, frozen=True):
    ticket: int
    refusal: Refusal
    message: str
    retry_after_s: float | None = None
    output: tuple[str, ...] = ()  # an engine's last lines, if one is the cause


class CountAgain(msgspec.Struct, frozen=True):
    """Have the need of this ticket, which waits or is a lease, counted by its model's engine; a
    Recounted follows, unless it is over before."""

    ticket: int


Action = (
    Grant
    | Start
    | Drain
    | Resume
    | Stop
    | Reject
    | CountAgain
    | EndAnswer
    | Look
    | YieldReady
    | YieldEnded
)
