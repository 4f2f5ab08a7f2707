"""What keeps people out of a page: found by axe-core, and with the Tab key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.driven_browser import Page
from tests.support.optional import axe_core

WIDE, NARROW = (1280, 900), (360, 740)
SERIOUS = ("serious", "critical")
FOUND = """
axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
  violations.flatMap(({ id, help, nodes }) => nodes.map(({ impact, target, failureSummary }) =>
    ({ impact, rule: id, help, at: target.join(' '), why: failureSummary }))))
"""
# What can be operated, in the order of the page; without what is not shown or is switched off.
CONTROLS = """
[...document.querySelectorAll(
  'a[href], button, input, select, textarea, summary, [tabindex]:not([tabindex="-1"])')]
  .filter((one) => !one.disabled && one.checkVisibility({ visibilityProperty: true }))
"""
BEGINNING = """
document.body.tabIndex = -1;
document.body.focus();
document.body.removeAttribute('tabindex');
"""
# Of the element that has the focus. A field that is not seen itself is shown by its label.
STOP = f"""
(() => {{
  const one = document.activeElement;
  if (one === document.body) return null;
  const shown = one.matches('.unseen') ? one.labels[0] : one;
  const marks = [shown, ...shown.querySelectorAll('*')].map((part) => getComputedStyle(part));
  const box = shown.getBoundingClientRect();
  const seen = document.elementFromPoint(
    Math.max(box.left, 0) + Math.min(box.width / 2, 20), box.top + Math.min(box.height / 2, 12));
  const name = one.getAttribute('aria-label') ?? (one.labels?.[0] ?? one).innerText;
  return {{
    name: `${{one.localName}} ${{name.trim()}}`,
    place: {CONTROLS.strip()}.indexOf(one),
    is_marked: marks.some(
      (mark) => mark.outlineStyle !== 'none' || parseFloat(mark.strokeWidth) > 1),
    is_in_sight: shown.contains(seen),
  }};
}})()
"""


def findings(page: Page, *impacts: str) -> list[str]:
    """One for each element and rule: serious ones, if nothing else is said."""
    # Evaluated as the driver, as the page's own policy allows no script from elsewhere.
    if not page.evaluate("'axe' in globalThis"):
        page.evaluate(f"{axe_core()}; 0")
    settle(page)
    found: list[dict[str, Any]] = page.evaluate(FOUND)
    return [
        f"{one['impact']}: {one['rule']} at {one['at']}: {one['help']}; {one['why']}"
        for one in found
        if one["impact"] in (impacts or SERIOUS)
    ]


def assert_nothing_serious(page: Page) -> None:
    """Light, dark, and on a narrow screen, where nothing may be wider than it."""
    for scheme, (width, height) in (("light", WIDE), ("dark", WIDE), ("light", NARROW)):
        page.prefer(reduced_motion="reduce", color_scheme=scheme)
        page.resize(width, height)
        found = findings(page)
        assert found == [], f"{scheme}, {width} px wide:\n" + "\n".join(found)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@dataclass(frozen=True)
class Stop:
    """Where the Tab key leads: `place` among all controls, whether the focus is marked there, and
    whether it is in sight."""

    name: str
    place: int
    is_marked: bool
    is_in_sight: bool


def settle(page: Page) -> None:
    """Until what follows its own size has done so."""
    page.evaluate("new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))")


def stops(page: Page) -> list[Stop]:
    """All of them, from the beginning of the page to its end."""
    page.evaluate(BEGINNING)
    found: list[Stop] = []
    most = 2 * controls(page) + 20  # the browser makes some more, of what can be scrolled
    while len(found) < most:
        page.press("Tab")
        if (stop := page.evaluate(STOP)) is None:
            return found
        found.append(Stop(**stop))
    raise AssertionError(f"the Tab key leads round and round: {found}")


def controls(page: Page) -> int:
    count: int = page.evaluate(f"{CONTROLS.strip()}.length")
    return count
