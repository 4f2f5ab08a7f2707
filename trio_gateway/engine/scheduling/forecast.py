"""Forecast: what loads and requests took so far, and what others will take. Pure.

Nothing is guessed that was never measured: it is None, for "not known". What an answer may still
take goes by its limit and its speed. Answers mostly end before their limit; once enough of a
model's answers did, after more tokens than this one has, it is taken for one of those.
"""

from __future__ import annotations

from collections import defaultdict, deque

from trio_gateway.engine.scheduling.engine_view import EngineView, HeldLease
from trio_gateway.engine.scheduling.events import VariantFacts, VariantKey
from trio_gateway.engine.scheduling.progress import AnswerProgress

NEWEST_SHARE = 0.3  # of the newest measurement in the running mean
_KEPT_SHARE = 1 - NEWEST_SHARE
MOVED_FROM = 0.1  # a mean that has moved by less than this share is no news
KNOWN_LENGTHS = 64  # the newest answers of a model that ended by themselves
REMEMBERED_TOKENS = 64  # so many count what was measured in earlier runs
TELLING_LENGTHS = 8  # so many of them tell how long others will be


class _Rate:
    """Seconds for each of something, the newest most."""

    def __init__(self) -> None:
        self._seconds = self._count = 0.0

    def took(self, count: float, seconds: float) -> None:
        self._seconds = self._seconds * _KEPT_SHARE + seconds
        self._count = self._count * _KEPT_SHARE + count

    def seconds(self, count: float) -> float:
        return count * self._seconds / self._count


def _no_lengths() -> deque[int]:
    return deque(maxlen=KNOWN_LENGTHS)


class Forecast:
    """Times are seconds."""

    def __init__(self) -> None:
        self._load_s: dict[VariantKey, float] = {}
        self._wake_s: dict[VariantKey, float] = {}
        self._lease_s: dict[str, float] = {}
        self._reading = defaultdict[str, _Rate](_Rate)  # by byte
        self._prompts = defaultdict[str, _Rate](_Rate)  # by token, until an answer begins
        self._answers = defaultdict[str, _Rate](_Rate)  # by token
        self._lengths = defaultdict[str, deque[int]](_no_lengths)

    # -- what was measured --------------------------------------------------------------------

    def load_took(self, key: VariantKey, seconds: float) -> None:
        self._load_s[key] = mean(self._load_s.get(key), seconds)

    def wake_took(self, key: VariantKey, seconds: float) -> None:
        """A start on a machine that had to be woken. How it slept tells: the newest holds."""
        self._wake_s[key] = seconds

    def start_took(self, engine: EngineView, now: float) -> None:
        """It is ready."""
        took = self.wake_took if engine.is_waking else self.load_took
        took(engine.key, now - engine.started_at)

    def lease_took(self, model: str, seconds: float) -> None:
        """A request of which nothing else is known, such as a WebSocket."""
        self._lease_s[model] = mean(self._lease_s.get(model), seconds)

    def reading_took(self, model: str, size: int, seconds: float) -> None:
        """A request of that many bytes, for which nothing was generated."""
        self._reading[model].took(max(size, 1), seconds)

    def remember(self, model: str, prompt_speed: float | None, speed: float | None) -> None:
        """What earlier runs have measured, in tokens a second; soon outweighed by what this one
        does."""
        for rates, remembered in ((self._prompts, prompt_speed), (self._answers, speed)):
            if remembered is not None and model not in rates:
                rates[model].took(REMEMBERED_TOKENS, REMEMBERED_TOKENS / remembered)

    def forget_load(self, key: VariantKey) -> None:
        """Its engines are started otherwise from now on."""
        self._load_s.pop(key, None)
        self._wake_s.pop(key, None)

    def lease_ended(self, model: str, lease: HeldLease, context: int, now: float) -> None:
        """`context`: of its engine."""
        if lease.progress is not None:
            self.answer_took(model, lease.progress, context, lease.granted_at, now)
        elif lease.read_bytes is not None:
            self.reading_took(model, lease.read_bytes, now - lease.granted_at)
        else:
            self.lease_took(model, now - lease.granted_at)

    def answer_took(
        self, model: str, answer: AnswerProgress, context: int, granted_at: float, now: float
    ) -> None:
        """Whether it came to its end or not."""
        begun_at, tokens = answer.begun_at, answer.tokens
        if begun_at is None:
            begun_at = granted_at
        else:
            self._prompts[model].took(max(answer.prompt, 1), begun_at - granted_at)
        if tokens > 1 and now > begun_at:
            self._answers[model].took(tokens, now - begun_at)
        if answer.is_complete and 0 < tokens < answer.limit_in(context):
            self._lengths[model].append(round(tokens))

    # -- what is to be expected ---------------------------------------------------------------

    def load_s(self, facts: VariantFacts) -> float:
        """What a load takes; the configuration's guess before the first."""
        return self._load_s.get(facts.key, facts.load_time_s)

    def known_load_s(self, facts: VariantFacts) -> float | None:
        """The same, if it was measured or the configuration says so."""
        return self._load_s.get(facts.key, facts.load_time_s if facts.load_time_known else None)

    def known_start_s(self, engine: EngineView) -> float | None:
        """What the start of an engine takes that is not ready yet, or took others like it."""
        if engine.is_waking:
            return self._wake_s.get(engine.key)
        return self.known_load_s(engine.facts)

    def start_s(self, engine: EngineView) -> float:
        """The same; a guess before the first."""
        found = self.known_start_s(engine)
        return self.load_s(engine.facts) if found is None else found

    def wake_s(self, key: VariantKey) -> float | None:
        """What a start takes whose machine has to be woken; None: not known."""
        return self._wake_s.get(key)

    def has_loaded(self, facts: VariantFacts) -> bool:
        """Whether a load of it was measured."""
        return facts.key in self._load_s

    def lease_s(self, model: str) -> float | None:
        return self._lease_s.get(model)

    def reading_s(self, model: str, size: int) -> float | None:
        """What it takes to have that many bytes read, one request after the other."""
        rate = self._reading.get(model)
        return None if rate is None else rate.seconds(max(size, 1))

    def answer_s(
        self, model: str, answer: AnswerProgress, context: int, speed: float | None = None
    ) -> float | None:
        """What an answer takes that has not begun. `speed`: tokens a second, as others have it now,
        if none was measured."""
        prompts = self._prompts.get(model)
        tokens = self._tokens(model, answer, context)
        took_s = self._generating_s(model, tokens)
        if took_s is None and speed is not None:
            took_s = tokens / speed
        if took_s is None:
            return None
        return took_s + (prompts.seconds(answer.prompt) if prompts is not None else 0.0)

    def answer_left_s(
        self, model: str, answer: AnswerProgress, context: int, granted_at: float, now: float
    ) -> float | None:
        """What an answer still takes whose engine was asked at that time."""
        since_s = now - granted_at
        if answer.begun_at is not None:
            left = self._tokens(model, answer, context) - answer.tokens
            speed = answer.speed(now)
            return left / speed if speed is not None else self._generating_s(model, left)
        whole_s = self.answer_s(model, answer, context)
        if whole_s is None:
            return None
        if not answer.is_seen:
            # An answer that is not seen, and takes longer than any should: nobody knows.
            return whole_s - since_s if since_s < whole_s else None
        generating_s = self._generating_s(model, self._tokens(model, answer, context)) or 0.0
        return max(whole_s - since_s, generating_s)

    def _generating_s(self, model: str, tokens: float) -> float | None:
        rate = self._answers.get(model)
        return None if rate is None else rate.seconds(tokens)

    def _tokens(self, model: str, answer: AnswerProgress, context: int) -> float:
        """How many the answer will have: its limit, or as many as the longer ones had."""
        limit = answer.limit_in(context)
        longer = [n for n in self._lengths.get(model, ()) if n > answer.tokens]
        if len(longer) < TELLING_LENGTHS:
            return max(limit, answer.tokens)
        return max(min(limit, round(sum(longer) / len(longer))), answer.tokens)


def mean(before: float | None, newest: float) -> float:
    """A running one."""
    return newest if before is None else before + NEWEST_SHARE * (newest - before)


def has_moved(now: float | None, before: float | None) -> bool:
    """Whether a mean is another than somebody knows, by enough to tell, or is the first."""
    if now is None or before is None:
        return now is not before
    return abs(now - before) > MOVED_FROM * before
