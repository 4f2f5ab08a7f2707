"""How many examples a property is tried with: as it says, a fifth if quick, or twenty times."""

from __future__ import annotations

from hypothesis import settings

QUICK = "quick"  # the profile: pytest --hypothesis-profile=quick
THOROUGH = "thorough"  # after a change of the scheduler, say: some minutes for a property
LEAST = 10


def examples(count: int) -> int:
    """For `@settings(max_examples=examples(400))`, whose number a profile would not change."""
    if settings.get_current_profile_name() == QUICK:
        return max(LEAST, count // 5)
    return count * 20 if settings.get_current_profile_name() == THOROUGH else count
