"""How many examples a property is tried with: all of them, or a tenth for a quick run."""

from __future__ import annotations

from hypothesis import settings

QUICK = "quick"  # the profile: pytest --hypothesis-profile=quick
LEAST = 10


def examples(count: int) -> int:
    """For `@settings(max_examples=examples(400))`, whose number a profile would not change."""
    if settings.get_current_profile_name() == QUICK:
        return max(LEAST, count // 10)
    return count
