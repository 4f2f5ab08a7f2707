"""How many examples a property is tried with: half as many as it says, a tenth if quick, or twenty
times as many."""

from __future__ import annotations

from hypothesis import settings

QUICK = "quick"  # the profile: pytest --hypothesis-profile=quick
THOROUGH = "thorough"  # after a change of the scheduler, say: some minutes for a property
LEAST = 10


def examples(count: int) -> int:
    """For `@settings(max_examples=examples(400))`, whose number a profile would not change."""
    if settings.get_current_profile_name() == THOROUGH:
        return count * 20
    return max(LEAST, count // (10 if settings.get_current_profile_name() == QUICK else 2))
