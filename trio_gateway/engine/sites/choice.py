"""Which of several sites a request is sent to. Pure.

In order: the first that works. Otherwise the one that has least to do for its weight, where slow
ones count as having more to do; a conversation stays at its site until that has much more to do
than the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.engine.sites.circuit import Use

# A conversation's own site may have this many times the load of the least loaded one, and more.
# Reading a long prompt again takes longer than to wait for one or two answers.
STICKS_TIMES = 2.0
STICKS_MORE = 2.0


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a site.

    `ours`: requests of this gateway's that it has. `others`: those of others; None: not known.
    `slowness`: see latency.py. `chosen`: the number of the last choice that fell on it.
    """

    name: str
    use: Use
    ours: int = 0
    others: int | None = None
    weight: float = 1.0
    slowness: float = 1.0
    chosen: int = 0


class Choice(msgspec.Struct, frozen=True):
    """`site`: its place in the sequence."""

    site: int
    why: str


def in_order(sites: Sequence[SiteView]) -> Choice:
    """Raises ValueError: there is none."""
    best = min(range(len(sites)), key=lambda n: sites[n].use)
    return Choice(best, f"{sites[best].name}: the first that works")


def least_loaded(sites: Sequence[SiteView], last: int | None = None) -> Choice:
    """`last`: the site of the conversation's last turn. Raises ValueError: there is no site."""
    costs = _costs(sites)

    def rank(n: int) -> tuple[Use, float, int]:
        return sites[n].use, costs[n], sites[n].chosen

    best = min(range(len(sites)), key=rank)
    if last is None or last == best:
        why = "" if last is None else "has the conversation, and "
        return Choice(best, _told(sites, best, why))
    name = sites[last].name
    if sites[last].use > sites[best].use:
        return Choice(best, _told(sites, best, f"{name} does not work; "))
    if costs[last] <= STICKS_TIMES * costs[best] + STICKS_MORE:
        return Choice(last, _told(sites, last, "has the conversation; "))
    return Choice(best, _told(sites, best, f"{name} has the conversation, and too much to do; "))


def _costs(sites: Sequence[SiteView]) -> list[float]:
    """What each has to do with one more: in requests, at a site of the usual weight. One that does
    not say what it has of others is taken to have as much as the rest."""
    told = [site.others for site in sites if site.others is not None]
    mean = sum(told) / len(told) if told else 0.0
    usual = sum(site.weight for site in sites) / len(sites)
    return [
        (site.ours + (mean if site.others is None else site.others) + 1)
        * site.slowness
        * (usual / site.weight)
        for site in sites
    ]


def _told(sites: Sequence[SiteView], chosen: int, why: str) -> str:
    there = _load(sites[chosen], "there")
    elsewhere = [_load(site, f"at {site.name}") for n, site in enumerate(sites) if n != chosen]
    return f"{sites[chosen].name}: {why}{', '.join([there, *elsewhere])}"


def _load(site: SiteView, where: str) -> str:
    text = f"{site.ours} of ours {where}"
    if site.others:
        text += f" and {site.others} of others"
    if site.use is Use.LAST_RESORT:
        return f"{text} (does not work)"
    if site.slowness > 1.0:
        return f"{text} ({site.slowness:.1f} times as slow)"
    return text
