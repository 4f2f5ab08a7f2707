"""RequestRow: a RequestRecord as others get it: the feed, pages, the history, files. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from trio_gateway.server.records.conversations import named_id, thread_id
from trio_gateway.server.records.request_record import RequestRecord

_SHORTEST_S = 0.1  # an answer that comes in one piece has been made before: that shows no speed


class RequestRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Times: `arrived_s` is Unix time, `…_after_s` seconds since then, the others durations.

    `asked`: the model's name as the client wrote it. `client`: a key's name, with that of a person
    behind it, or what tells clients without keys apart. `conversation`: requests with the same go
    on from each other; its key's name and its client's own name for it, or a digest. `cache_break`:
    where it parts, early, from the last one of that. `need`: tokens of prompt and answer;
    `counted_by` says who counted the prompt, `is_exact` whether that is all there is to know.
    `decision`: how it came by its engine; `why`: why this variant. `choice`: by which rule this
    model was taken of several: `coder; loaded; its engine runs`. `site`: of a remote
    model's URLs, which one has answered, and why that one: `gpu2: has the conversation; 1 of ours
    there, 3 of ours at gpu1`. `waited_s` is its time in line, perhaps in vain; `load_s` of a load
    that it waited for.
    While it waits, `sentence` says for what, `position` is its place in the line (1 is the next),
    and `expected_wait_s` is what is left of its wait.
    `cached_tokens` of the prompt were in the engine's KV cache. `prompt_speed` and `speed`: tokens
    a second. `kv_…`: tokens of carry-over. `finish`: why the answer ended, in its API's word.
    """

    id: str
    endpoint: str
    arrived_s: float
    stage: str
    asked: str | None = None
    model: str | None = None
    variant: str | None = None
    context: int | None = None
    engine: int | None = None
    client: str = ""
    key: str | None = None
    priority: str = "interactive"
    conversation: str | None = None
    cache_break: str | None = None
    need: int | None = None
    answer_limit: int | None = None
    counted_by: str | None = None
    counted_tokens: int | None = None
    is_exact: bool = False
    decision: str | None = None
    evicted: tuple[str, ...] = ()
    why: str = ""
    choice: str | None = None
    site: str = ""
    is_streamed: bool = False
    tries: int = 0
    granted_after_s: float | None = None
    waited_s: float | None = None
    load_s: float | None = None
    sent_after_s: float | None = None
    first_byte_after_s: float | None = None
    took_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    generated_tokens: int | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None
    prompt_speed: float | None = None
    speed: float | None = None
    kv_restored: int = 0
    kv_saved: int = 0
    kv_spared: int | None = None
    status: int = 0
    outcome: str | None = None
    finish: str = ""
    error: str | None = None
    sentence: str = ""
    position: int | None = None
    expected_wait_s: float | None = None
    request_bytes: int = 0
    answer_bytes: int = 0


def row_of(record: RequestRecord, now: float) -> RequestRow:
    """As it is at this time of the monotonic clock."""
    began, selection, usage = record.arrived_at, record.selection, record.usage
    way = record.way
    generated = record.generated

    def after_s(moment: float | None) -> float | None:
        return None if moment is None else round(max(moment - began, 0.0), 4)

    is_granted = way.granted_at is not None
    has_waited = is_granted or way.queued_at is not None
    counted = selection is not None and selection.prompt > 0
    return RequestRow(
        id=record.id,
        endpoint=record.endpoint,
        arrived_s=round(record.arrived_s, 3),
        stage=record.stage.value,
        asked=record.asked,
        model=record.model,
        variant=None if way.variant is None else way.variant.variant,
        context=way.context or None,
        engine=way.engine,
        client=record.client or record.key or "",
        key=record.key,
        priority=record.priority.word,
        conversation=_conversation(record),
        cache_break=record.cache_break,
        need=None if selection is None else selection.need,
        answer_limit=None if selection is None else selection.answer,
        counted_by=selection.source.value if selection is not None and counted else None,
        counted_tokens=selection.prompt if selection is not None and counted else None,
        is_exact=selection is not None and selection.is_exact,
        decision=None if way.how is None else way.how.value,
        evicted=tuple(map(str, way.evicted)),
        why="" if selection is None else selection.reason,
        choice=None if record.chosen is None else str(record.chosen),
        site=record.site,
        is_streamed=record.is_streamed,
        tries=record.tries,
        granted_after_s=after_s(way.granted_at),
        waited_s=round(way.queue_s, 4) if has_waited else None,
        load_s=round(way.load_s, 4) if is_granted else None,
        sent_after_s=after_s(record.sent_at),
        first_byte_after_s=after_s(record.first_byte_at),
        took_s=after_s(now if record.ended_at is None else record.ended_at),
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        cached_tokens=None if usage is None else usage.cached_tokens,
        generated_tokens=generated,
        drafted_tokens=None if usage is None else usage.drafted,
        accepted_tokens=None if usage is None else usage.accepted,
        prompt_speed=None if usage is None else _rounded(usage.speed),
        speed=_rounded(_speed(record, generated, now)),
        kv_restored=record.kv_restored,
        kv_saved=record.kv_saved,
        kv_spared=record.kv_spared,
        status=record.status,
        outcome=None if record.outcome is None else record.outcome.value,
        finish=record.seen_finish if usage is None else usage.finish,
        error=record.error,
        request_bytes=record.request_bytes,
        answer_bytes=record.answer_bytes or _size_so_far(record),
    )


def _size_so_far(record: RequestRecord) -> int:
    """Of a stream that runs: what its engine has sent. To count what is sent to its client as it
    goes would cost 1 % of each chunk."""
    progress = None if record.lease is None else record.lease.progress
    return 0 if progress is None else progress.size


def known_of(row: RequestRow, knows: Callable[[str], bool]) -> RequestRow:
    """The row for whoever may know these models only: without the names of others that made way."""
    evicted = tuple(name for name in row.evicted if knows(name.rpartition(":")[0]))
    if len(evicted) == len(row.evicted):
        return row
    return msgspec.structs.replace(row, evicted=evicted)


def _conversation(record: RequestRecord) -> str | None:
    if record.conversation is not None:
        return named_id(record.key, record.conversation)
    if record.thread is None:
        return None
    return thread_id(record.client or record.key or "", record.thread)


def _speed(record: RequestRecord, generated: int | None, now: float) -> float | None:
    """Tokens a second of the answer: as its engine says, or as they were seen to come. The first
    one comes with the prompt: llama-server says that one alone has taken 0.001 ms."""
    usage = record.usage
    if usage is not None and usage.made_ms and usage.completion_tokens > 1:
        return usage.completion_tokens / usage.made_ms * 1000
    if not generated or generated < 2 or not record.is_streamed or record.first_byte_at is None:
        return None
    took_s = (now if record.ended_at is None else record.ended_at) - record.first_byte_at
    return generated / took_s if took_s >= _SHORTEST_S else None


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)
