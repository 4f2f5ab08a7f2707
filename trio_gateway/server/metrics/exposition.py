"""Exposition: the metrics in Prometheus' formats. Imported by the first scrape: it takes 0.4 MB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import trio
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import trio_gateway
from trio_gateway.server.metrics.families import Counted, Measured, Spreading
from trio_gateway.server.metrics.gateway_metrics import GatewayMetrics

PREFIX = "trio_gateway_"
SAMPLES_MAX = 2000  # ten models: to make text of them takes 10 ms


class Exposition:
    """Its registry is its own: what others in this process register is no business of this page."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(metrics))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    async def encoded(self, accepted: str) -> tuple[bytes, str]:
        """And its content type: OpenMetrics' or Prometheus' own format, as `Accept` says."""
        encode, content_type = choose_encoder(accepted)
        read = _Read([*self._registry.collect()])
        if sum(len(family.samples) for family in read.families) <= SAMPLES_MAX:
            return encode(read), content_type
        # In a thread, as nobody else is answered meanwhile: of 30 models, others waited for 90 ms,
        # and so they wait for 30. Cancelled, nothing is lost.
        made = partial(encode, read)
        return await trio.to_thread.run_sync(made, abandon_on_cancel=True), content_type


class _Read(Collector):
    """What was read before."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self.families = families

    def collect(self) -> Sequence[Metric]:
        return self.families


class _Collector(Collector):
    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterator[Metric]:
        """None: what there is depends on what happened, and is not asked for twice."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield _build_info(trio_gateway.__version__)
        for what in self._metrics.collect():
            yield _family(what)


def _family(what: Counted | Spreading | Measured) -> Metric:
    name = PREFIX + what.name
    match what:
        case Spreading():
            histogram = HistogramMetricFamily(name, what.help, labels=what.labels)
            for labels, spread in [*what.spreads.items()]:
                histogram.add_metric(labels, spread.cumulative(), spread.total)
            return histogram
        case Counted():
            counter = CounterMetricFamily(name, what.help, labels=what.labels)
            for labels, value in [*what.values.items()]:
                counter.add_metric(labels, value)
            return counter
        case Measured():
            gauge = GaugeMetricFamily(name, what.help, labels=what.labels)
            for labels, value in [*what.values.items()]:
                gauge.add_metric(labels, value)
            return gauge


def _build_info(version: str) -> Metric:
    info = InfoMetricFamily(f"{PREFIX}build", "The gateway itself.")
    info.add_metric((), {"version": version})
    return info
