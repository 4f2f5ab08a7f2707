"""Draws how many requests waited how long, per trace and policy. Needs the extra `bench`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.person import Results, person_asks
from benchmarks.policies import POLICIES
from benchmarks.traces import HAMMERS, PERSON, TRACES

STYLES = {
    "strict": ("strict first come, first served", "#888888", "--"),
    "unbounded": ("unbounded fast path", "#d95f02", "-."),
    "ours": ("ours", "#1b6ca8", "-"),
}
SHORTEST_S = 0.1  # shorter waits are drawn here: a logarithmic axis has no zero
COLUMNS = 3
DOTS_PER_INCH = 110


def draw(results: Results, path: Path, *, slots: int = 4) -> None:
    """All seeds of each trace together; in a hammer trace the person's waits only."""
    mpl.rcParams["font.size"] = 8
    rows = -(-len(TRACES) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 2.6 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True)
    for panel, name in zip(axes.flat, TRACES, strict=False):
        hammered = name in HAMMERS
        for policy in POLICIES:
            waits = sorted(
                max(request.wait_s, SHORTEST_S)
                for played in results[slots, name, policy]
                for request in played.run.served
                if not hammered or request.client == PERSON
            )
            label, colour, line = STYLES[policy]
            shares = [100 * (n + 1) / len(waits) for n in range(len(waits))]
            panel.step(waits, shares, line, color=colour, label=label, linewidth=1.4, where="post")
        if hammered:
            asks = [ask for p in results[slots, name, "ours"] for ask in person_asks(p)]
            bound_s = max(ask.bound_s for ask in asks)
            panel.axvline(bound_s, color="black", linewidth=0.9, linestyle=":")
            panel.text(bound_s * 1.15, 12, f"bound {bound_s:.0f} s", fontsize=7)
        panel.set_title(f"{name}: the person's waits" if hammered else name, fontsize=9)
        panel.set_xscale("log")
        panel.grid(alpha=0.3)
    for panel in axes[-1]:
        panel.set_xlabel(f"wait, s ({slots} slots)")
    for panel in axes[:, 0]:
        panel.set_ylabel("% of requests waited no longer")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(POLICIES), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)
