"""Arrival traces for the simulator: who asks what, and when. The same seed gives the same trace.

Service times are log-uniform between `SERVICE_S`, load times between `LOAD_S` (one for each model),
as most answers are short and a few are long. So that a trace loads the engine but could be served,
arrivals come at `UTILISATION` of what its slots can do without any load in between; how much of
the rest a policy spends on loading is what is compared. Bounded in count: a policy that cannot
keep up builds a line until the arrivals end.

- *interleaved*: two models, strictly in turns, asked at random moments by 16 people (an open loop);
- *interleaved, closed*: 16 clients, half of them on each model, each thinks between an answer and
  its next question;
- *bursts*: three models; each burst is up to a dozen questions of one client to one of
  them within two seconds;
- *zipf*: 20 clients in closed loops over five models, of which a few are asked most of the time;
- *hammer*: an agent on A with four loops, each of which asks again as soon as it is answered, so
  that A's engine is never idle. A person asks B 30 s after the last answer;
- *long hammer*: the same for three times as long, to show what grows with it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.simulator import Client, Request, Trace

LOAD_S = (3.0, 40.0)
SERVICE_S = (1.0, 60.0)
UTILISATION = 0.6
REQUESTS = 240
PEOPLE = 16
PERSON, AGENT_LOOPS, PERSON_PAUSE_S = "person", 4, 30.0
HAMMER_S = 900.0  # what the agent's questions take without any interruption


class Question(NamedTuple):
    """At a fixed moment. `key`: the client, as the scheduler knows it."""

    at: float
    model: str
    service_s: float
    key: str


# (random numbers, slots) -> a trace
Make = Callable[[random.Random, int], Trace]


def _log_uniform(rng: random.Random, limits: tuple[float, float]) -> float:
    return math.exp(rng.uniform(*map(math.log, limits)))


def _mean_of_log_uniform(limits: tuple[float, float]) -> float:
    low, high = limits
    return (high - low) / math.log(high / low)


MEAN_SERVICE_S = _mean_of_log_uniform(SERVICE_S)


def _loads(rng: random.Random, models: Sequence[str]) -> dict[str, float]:
    return {model: _log_uniform(rng, LOAD_S) for model in models}


def _service_s(rng: random.Random) -> float:
    return _log_uniform(rng, SERVICE_S)


def _arrivals(questions: Sequence[Question]) -> tuple[Client, ...]:
    """An open loop."""
    return tuple(
        Client(f"question {number}", (Request(model, service_s, apart_s=at),), key)
        for number, (at, model, service_s, key) in enumerate(questions)
    )


def _mean_gap_s(slots: int) -> float:
    return MEAN_SERVICE_S / (UTILISATION * slots)


def _think_s(clients: int, slots: int) -> float:
    """So that clients who never wait would use that much of the slots."""
    return max(clients * MEAN_SERVICE_S / (UTILISATION * slots) - MEAN_SERVICE_S, 0.0)


def interleaved(rng: random.Random, slots: int) -> Trace:
    questions: list[Question] = []
    now = 0.0
    for number in range(REQUESTS):
        key = f"client {rng.randrange(PEOPLE)}"
        questions.append(Question(now, "AB"[number % 2], _service_s(rng), key))
        now += rng.expovariate(1 / _mean_gap_s(slots))
    return Trace(load_s=_loads(rng, "AB"), clients=_arrivals(questions), slots=slots)


def _closed(
    rng: random.Random, slots: int, clients: int, choose: Callable[[int], str]
) -> tuple[Client, ...]:
    think_s = _think_s(clients, slots)
    return tuple(
        Client(
            f"client {number}",
            tuple(
                Request(choose(number), _service_s(rng), pause_s=rng.expovariate(1 / think_s))
                for _ in range(REQUESTS // clients)
            ),
        )
        for number in range(clients)
    )


def interleaved_closed(rng: random.Random, slots: int) -> Trace:
    clients = _closed(rng, slots, PEOPLE, lambda number: "AB"[number % 2])
    return Trace(load_s=_loads(rng, "AB"), clients=clients, slots=slots)


def bursts(rng: random.Random, slots: int) -> Trace:
    sizes = (2, 12)
    questions: list[Question] = []
    now, burst = 0.0, 0
    while len(questions) < REQUESTS:
        model, size = rng.choice("ABC"), rng.randint(*sizes)
        burst += 1
        questions += [
            Question(now + rng.uniform(0, 2), model, _service_s(rng), f"burst {burst}")
            for _ in range(size)
        ]
        now += rng.expovariate(1 / (sum(sizes) / 2 * _mean_gap_s(slots)))
    return Trace(load_s=_loads(rng, "ABC"), clients=_arrivals(questions), slots=slots)


def zipf(rng: random.Random, slots: int) -> Trace:
    models = "ABCDE"
    weights = [1 / rank for rank in range(1, len(models) + 1)]
    clients = _closed(rng, slots, 20, lambda _: rng.choices(models, weights)[0])
    return Trace(load_s=_loads(rng, models), clients=clients, slots=slots)


def hammer(rng: random.Random, slots: int, hammer_s: float = HAMMER_S) -> Trace:
    """The agent's questions take `hammer_s` without a person; the person asks on all the while."""
    count = round(hammer_s * min(slots, AGENT_LOOPS) / MEAN_SERVICE_S / AGENT_LOOPS)
    loops = [
        Client(f"agent {n}", tuple(Request("A", _service_s(rng)) for _ in range(count)), "agent")
        for n in range(AGENT_LOOPS)
    ]
    asks = tuple(
        Request("B", _service_s(rng), pause_s=PERSON_PAUSE_S)
        for _ in range(round(hammer_s / PERSON_PAUSE_S))
    )
    return Trace(load_s=_loads(rng, "AB"), clients=(*loops, Client(PERSON, asks)), slots=slots)


def long_hammer(rng: random.Random, slots: int) -> Trace:
    """Three times as long, to show what grows with it."""
    return hammer(rng, slots, 3 * HAMMER_S)


TRACES: Mapping[str, Make] = {
    "interleaved": interleaved,
    "interleaved, closed": interleaved_closed,
    "bursts": bursts,
    "zipf": zipf,
    "hammer": hammer,
    "long hammer": long_hammer,
}
INTERLEAVED = ("interleaved", "interleaved, closed")
HAMMERS = ("hammer", "long hammer")


def make(name: str, seed: int, slots: int) -> Trace:
    return TRACES[name](random.Random(f"{name} {seed} {slots}"), slots)
