"""The simulator that compares schedulers, on traces short enough for every test run."""

from __future__ import annotations

import random

import pytest

from benchmarks.person import WINDOW_S, Played, person_asks
from benchmarks.policies import POLICIES
from benchmarks.scheduler_cpu import crowd
from benchmarks.simulator import STOP_S, Client, Request, Run, Simulation, Trace
from benchmarks.traces import TRACES, hammer, make

LOAD_S = 5.0


def play(trace: Trace, policy: str) -> Run:
    return Simulation(trace, POLICIES[policy], window_s=WINDOW_S).play()


def asked_at_once(models: str, service_s: float, slots: int = 1) -> Trace:
    """One client for each letter, all at the beginning, in this order."""
    clients = tuple(
        Client(f"client {number}", (Request(model, service_s),))
        for number, model in enumerate(models)
    )
    return Trace(load_s=dict.fromkeys(models, LOAD_S), clients=clients, slots=slots)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("name", TRACES)
def test_every_policy_serves_every_request(name: str, slots: int, policy: str) -> None:
    trace = make(name, 1, slots)
    run = play(trace, policy)
    assert len(run.served) == sum(len(client.requests) for client in trace.clients)
    assert not run.left
    assert not run.rejected


def test_strict_order_swaps_for_every_other_request_and_ours_once() -> None:
    trace = asked_at_once("ABAB", 1.0)
    assert [r.model for r in play(trace, "strict").served] == ["A", "B", "A", "B"]
    ours = play(trace, "ours")
    assert [r.model for r in ours.served] == ["A", "A", "B", "B"]
    assert (play(trace, "strict").swaps, ours.swaps) == (3, 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_swap_costs_a_stop_and_a_load(policy: str) -> None:
    run = play(asked_at_once("AB", 1.0), policy)
    assert [r.granted_at for r in run.served] == [LOAD_S, LOAD_S + 1.0 + STOP_S + LOAD_S]


@pytest.mark.parametrize("policy", POLICIES)
def test_an_engine_never_serves_more_than_its_slots(policy: str) -> None:
    run = play(asked_at_once("AAAAA", 1.0, slots=2), policy)
    assert [r.granted_at - LOAD_S for r in run.served] == [0, 0, 1, 1, 2]


def test_ours_swaps_less_than_strict_order_on_interleaved_arrivals() -> None:
    trace = make("interleaved", 1, 4)
    assert 4 * play(trace, "ours").swaps < play(trace, "strict").swaps


@pytest.mark.parametrize("slots", [1, 4])
def test_a_person_beside_a_hammering_agent_waits_within_the_bound(slots: int) -> None:
    trace = hammer(random.Random(1), slots, hammer_s=300)
    asks = person_asks(Played(trace, play(trace, "ours")))
    assert len(asks) == 10
    assert all(ask.wait_s <= ask.whole_bound_s for ask in asks)


def test_without_a_bound_the_person_waits_until_the_hammering_ends() -> None:
    longest = []
    for hammer_s in (300, 900):
        trace = hammer(random.Random(1), 4, hammer_s)
        asks = person_asks(Played(trace, play(trace, "unbounded")))
        longest.append(max(ask.wait_s for ask in asks))
    assert longest[0] > 150
    assert longest[1] > 2 * longest[0]


def test_who_loses_patience_leaves_and_asks_again() -> None:
    asks = (Request("B", 1.0, patience_s=2.0), Request("B", 1.0))
    trace = Trace(
        load_s={"A": LOAD_S, "B": LOAD_S},
        clients=(Client("a", (Request("A", 1.0),)), Client("b", asks)),
        slots=1,
    )
    run = play(trace, "ours")
    assert (run.left, len(run.served)) == (1, 2)


def test_the_crowd_of_the_cpu_measurement_is_large_enough() -> None:
    trace = crowd(1)
    assert sum(len(client.requests) for client in trace.clients) > 10_000
