"""A real Prometheus scrapes a gateway under load: whether the dashboard and the alerts find data.

    python -m tests.support.observe

It needs Prometheus (Debian: `apt install prometheus`), and takes about a minute. Each query of
docs/grafana.json has to give something, each rule of docs/alerts.yml has to be evaluated and to
fire when it should, the names in both have to be in /metrics, and promtool to find no fault with
those.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.harness import (
    configuration,
    fake_model,
    free_port,
    model,
    real_variant,
    running_gateway,
)

DOCS = Path(__file__).parents[2] / "docs"
SCRAPE_S = 1
ENOUGH_SCRAPES_S = 20
NAME = re.compile(r"\btrio_gateway_[a-z0-9_]+")
PROMETHEUS = """\
global: { scrape_interval: %ds, evaluation_interval: %ds }
rule_files: ["%s"]
scrape_configs:
  - job_name: trio-gateway
    static_configs: [{ targets: ["127.0.0.1:%d"] }]
"""


@contextmanager
def running_prometheus(folder: Path, port: int) -> Iterator[str]:
    """Its address. It scrapes the gateway at `port`."""
    own = free_port()
    config = folder / "prometheus.yml"
    config.write_text(PROMETHEUS % (SCRAPE_S, SCRAPE_S, DOCS / "alerts.yml", port))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{own}"]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            base = f"http://127.0.0.1:{own}"
            _wait_until_ready(base)
            yield base
        finally:
            process.terminate()
            process.wait(20)


def _wait_until_ready(base: str) -> None:
    for _ in range(100):
        try:
            if httpx.get(f"{base}/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("Prometheus did not start")


def load(base: str) -> None:
    """Chats of two models that do not fit together, streamed and not; and some that go wrong."""
    until = time.monotonic() + ENOUGH_SCRAPES_S

    def ask(number: int) -> None:
        while time.monotonic() < until:
            name = ("small", "other")[number % 2] if number < 4 else "nobody"
            long = "Tell me a story. " * (30 + 20 * number)
            body = {
                "model": name, "max_tokens": 24, "stream": number % 3 == 0,
                "messages": [{"role": "user", "content": long}],
            }  # fmt: skip
            httpx.post(f"{base}/v1/chat/completions", json=body, timeout=120)
            time.sleep(0.2)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(ask, range(5)))


def queries() -> list[tuple[str, str]]:
    """The title of each panel of the dashboard, and what it asks."""
    board = json.loads((DOCS / "grafana.json").read_text())
    return [
        (panel["title"], target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def asked(base: str, expression: str) -> list[Any]:
    """What it gives; of the dashboard's own variables, what Grafana would put there."""
    expression = expression.replace("$__rate_interval", "15s").replace("$instance", ".*")
    answer = httpx.get(f"{base}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    result: list[Any] = answer["data"]["result"]
    return result


def unknown_names(page: str) -> set[str]:
    """Metrics that are asked for and are not in `/metrics`."""
    texts = [
        (DOCS / name).read_text() for name in ("grafana.json", "alerts.yml", "observability.md")
    ]
    wanted = {name for text in texts for name in NAME.findall(text)}
    families = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    known = {f"{name}{end}" for name in families for end in ("", "_bucket", "_sum", "_count")}
    return wanted - known - {"trio_gateway_"}


def main() -> int:
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        print("this needs prometheus and promtool (Debian: apt install prometheus)")
        return 2
    subprocess.run(["promtool", "check", "rules", str(DOCS / "alerts.yml")], check=True)
    fire = Path(__file__).with_name("data") / "alerts_fire.yml"
    subprocess.run(["promtool", "test", "rules", str(fire)], check=True)
    small = model("small", real_variant(2048), kv_carryover="true")
    given = configuration(small, model("other", real_variant(2048)), fake_model("third"))
    given += 'pools = { primary = { memory = "4GiB" } }\n'
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            running_gateway(folder, given) as gateway,
            running_prometheus(folder, int(gateway.base_url.rpartition(":")[2])) as prometheus,
        ):
            load(gateway.base_url)
            page = httpx.get(f"{gateway.base_url}/metrics").text
            # It reads Prometheus' own format only; Prometheus itself has scraped OpenMetrics'.
            subprocess.run(["promtool", "check", "metrics"], input=page, text=True, check=True)
            time.sleep(2 * SCRAPE_S)
            empty = [(t, q) for t, q in queries() if not asked(prometheus, q)]
            rules = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"][0]["rules"]
    for title, query in empty:
        print(f"EMPTY  {title}: {query}")
    unwell = [rule["name"] for rule in rules if rule["health"] != "ok"]
    names = unknown_names(page)
    print(
        f"{len(queries())} queries, {len(empty)} without data; {len(rules)} rules, not evaluated: "
        f"{unwell or 'none'}; unknown metrics: {sorted(names) or 'none'}"
    )
    return 1 if empty or unwell or names else 0


if __name__ == "__main__":
    sys.exit(main())
