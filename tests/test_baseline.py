"""What `nox -s bench` keeps of a run and says about the next one."""

from __future__ import annotations

from pathlib import Path

from benchmarks.relay import baseline
from benchmarks.relay.figures import Figure, Ratios, Table

MEASURED: dict[str, Ratios] = {
    "relay": {"asgi": {"request": 2.0}, "trio-gateway": {"request": 5.0}}
}
MACHINE = "Python 3.11, 2 cores"


def test_a_ratio_compares_figures_of_the_same_round() -> None:
    table = Table("relay")
    table.rows["raw"] = [{Figure.REQUEST: speed} for speed in (1.0, 10.0, 3.0)]
    table.rows["ours"] = [{Figure.REQUEST: speed} for speed in (2.0, 20.0, 12.0)]
    assert table.ratio("ours", Figure.REQUEST) == 2.0
    assert table.ratios() == {"ours": {"request": 2.0}}


def test_a_row_without_a_process_has_no_ratio_of_its_cpu() -> None:
    table = Table("relay", {"raw": [{Figure.CPU_REQUEST: 9.0}], "direct": [{}]})
    assert table.ratio("direct", Figure.CPU_REQUEST) is None
    assert table.ratios() == {"direct": {}}


def test_what_moved_by_more_than_a_tenth_is_said(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    baseline.update(MEASURED, MACHINE, file)
    now = {"relay": {"asgi": {"request": 2.19}, "trio-gateway": {"request": 4.0}}}
    assert baseline.moved(MEASURED, baseline.read(file)) == []
    (line,) = baseline.moved(now, baseline.read(file))
    assert line == "relay, trio-gateway, request: 5.00 → 4.00 (-20%)"


def test_what_was_not_kept_did_not_move(tmp_path: Path) -> None:
    assert baseline.moved(MEASURED, baseline.read(tmp_path / "none.json")) == []


def test_an_update_leaves_the_tables_that_were_not_measured(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    baseline.update(MEASURED, MACHINE, file)
    baseline.update({"over TLS": {"trio-gateway": {"request": 3.0}}}, "another", file)
    kept = baseline.read(file)
    assert kept.ratios == {**MEASURED, "over TLS": {"trio-gateway": {"request": 3.0}}}
    assert kept.measured_on == {"relay": MACHINE, "over TLS": "another"}
