"""How engines are reached and how long they may take: the frozen structs for those keys."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trio_gateway.config.cluster_schema import ClusterOptions
from trio_gateway.config.secret import Secret
from trio_gateway.config.site_schema import Balance, SiteOptions
from trio_gateway.config.wake_schema import WakeOnLan, Way


class EngineTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on one engine, already resolved: variant before model before server. `idle_s` may be
    NEVER."""

    health_check_s: float = 5.0
    startup_s: float = 120.0
    idle_s: float = 300.0
    stop_s: float = 10.0


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What only some types of engine have; already resolved: variant before model.

    `served_name`: what the engine calls the model. `api_key`: what the engine wants to see.
    `urls`: where an engine without a process is, the first choice first; `sites`: the same with
    what is said of each. `balance`: None, in order unless one of them has a weight. `ca_file`:
    takes the place of the system's certificates. `cluster`: of one that runs on a Ray cluster.
    `gateway`: at its URLs are gateways like this one, which are told who asks. `wake`,
    `wake_command`: how its machine is woken, by one of them at most; `wake_timeout_s`: it is to
    answer within that.
    """

    served_name: str | None = None
    health_path: str | None = None
    api_key: Secret | None = None
    urls: tuple[str, ...] = ()
    ca_file: Path | None = None
    verify_tls: bool = True
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 600.0
    health_interval_s: float = 15.0
    cluster: ClusterOptions | None = None
    gateway: bool = False
    sites: tuple[SiteOptions, ...] = ()
    balance: Balance | None = None
    wake: WakeOnLan | None = None
    wake_command: tuple[str, ...] = ()
    wake_timeout_s: float = 120.0

    @property
    def spreads(self) -> bool:
        """Whether requests are spread over the URLs."""
        if self.balance is None:
            return any(site.weight is not None for site in self.sites)
        return self.balance is Balance.LEAST_LOADED

    @property
    def ways_to_wake(self) -> tuple[Way, ...]:
        """One after the other. That of a URL takes the place of the one for all."""
        for_all = Way(self.wake, self.wake_command)
        own = (Way(site.wake, site.wake_command) for site in self.sites)
        ways = [way if way.is_one else for_all for way in own] or [for_all]
        return tuple(dict.fromkeys(way for way in ways if way.is_one))
