"""Trial: a variant is started for real, by an EngineManager of its own, and asked.

What is measured goes into the ledger as it does in a gateway, so that the next one knows it.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from trio_gateway.config.access_schema import AccessConfig
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.schema import (
    NEVER,
    GatewayConfig,
    KvCarryoverConfig,
    ModelConfig,
    VariantConfig,
)
from trio_gateway.config.server_options import RERANKING
from trio_gateway.engine.kv.policy import LEAST_TOKENS
from trio_gateway.engine.kv.prompt import Prompt
from trio_gateway.engine.lease import Lease, LeaseRefused
from trio_gateway.engine.ledger.entry import Entry
from trio_gateway.engine.ledger.file import LedgerFile
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.examining.asking import (
    Answered,
    AskFailed,
    Chat,
    ask_about_image,
    ask_chat,
    ask_embedding,
    ask_for_tool,
    ask_ranking,
    chat_body,
)
from trio_gateway.examining.models import model_file
from trio_gateway.gguf.header import read_header
from trio_gateway.gguf.metadata import BadGguf

PROMPT_TOKENS = 640  # long enough for a speed, and for a cache that is worth it
ANSWER_TOKENS = 48
QUEUE_S = 60.0  # beyond what a start may take
STOP_S = 15.0  # beyond what the engine's own stop may take
# In English a word has a token or two; each sentence has about nine tokens.
_SENTENCE, _SENTENCE_TOKENS = "Sentence {} says that {} grey cats sleep here. ", 14

_GREETING = {"role": "user", "content": "Say yes."}


class Tried(msgspec.Struct, frozen=True):
    """`works` None: it was not tried, for the reason in `said`."""

    works: bool | None
    said: str = ""


NOT_TRIED = Tried(None)


class Trial(msgspec.Struct, kw_only=True):
    """What came of it; None: not known. `failure`: why it did not start; `output`: the last lines
    of its engine. `asked`: whether it answered at all. Speeds are tokens a second."""

    key: VariantKey
    failure: str = ""
    output: tuple[str, ...] = ()
    load_s: float | None = None
    memory_bytes: int | None = None
    context: int | None = None
    slots: int | None = None
    prompt_speed: float | None = None
    speed: float | None = None
    asked: Tried = NOT_TRIED
    restore: Tried = NOT_TRIED
    tools: Tried = NOT_TRIED
    images: Tried = NOT_TRIED


class _MeasuredAnew(LedgerFile):
    """Nothing that earlier runs have found out may decide what is tried."""

    def open(self) -> dict[str, Entry]:
        super().open()
        return {}


async def try_variant(
    config: GatewayConfig,
    model: ModelConfig,
    variant: VariantConfig,
    ledger: LedgerFile | None,
    tell: Callable[[str], None],
) -> Trial:
    """Start it, ask it, stop it. `tell` is called with what is done next. Leaves no engine behind,
    however it ends."""
    with tempfile.TemporaryDirectory(prefix="trio-gateway-doctor-") as folder:
        alone = _alone(config, model, variant, Path(folder))
        anew = None if ledger is None else _MeasuredAnew(ledger.path)
        manager = EngineManager(alone, ledger=anew)
        trial = _Trial(manager, alone.models[0], variant, tell)
        async with trio.open_nursery() as nursery:
            await nursery.start(manager.run)
            await trial.run()
            tell("stopping")
            manager.begin_shutdown()
            with trio.move_on_after(variant.timeouts.stop_s + STOP_S):
                await manager.stopped.wait()
            manager.kill_engines("it did not stop in time")
    return trial.found


def _alone(
    config: GatewayConfig, model: ModelConfig, variant: VariantConfig, folder: Path
) -> GatewayConfig:
    """A configuration with this variant only, which stays as long as it is asked."""
    timeouts = msgspec.structs.replace(variant.timeouts, idle_s=NEVER)
    only = msgspec.structs.replace(variant, timeouts=timeouts)
    # On the devices of its pool, however much it turns out to need.
    pool = config.pools.get(model.pool, PoolConfig(model.pool))
    pool = msgspec.structs.replace(pool, engines=1, memory_bytes=None, memory_auto=False)
    saves = config.server.kv_carryover is not None and model.kv_carryover
    return msgspec.structs.replace(
        config,
        models=(msgspec.structs.replace(model, variants=(only,), pinned=False),),
        pools={model.pool: pool},
        server=msgspec.structs.replace(
            config.server,
            access=AccessConfig(),
            kv_carryover=KvCarryoverConfig(directory=folder / "kv") if saves else None,
            queue_timeout_s=variant.timeouts.startup_s + QUEUE_S,
        ),
    )


class _Trial:
    def __init__(
        self,
        manager: EngineManager,
        model: ModelConfig,
        variant: VariantConfig,
        tell: Callable[[str], None],
    ) -> None:
        self._manager, self._model, self._variant, self._tell = manager, model, variant, tell
        self.found = Trial(key=VariantKey(model.name, variant.name))

    async def run(self) -> None:
        try:
            await self._run()
        except LeaseRefused as refused:
            self.found.failure = refused.reject.message
            self.found.output = refused.reject.output

    async def _run(self) -> None:
        self._tell("starting")
        chat: Chat = ()
        if not self._variant.has_process:
            async with self._manager.lease(self._model, 1) as lease:
                self._note_engine(lease)
                self.found.asked = Tried(None, "it is elsewhere: no more than its health was asked")
            return
        if await self._chats():
            chat = [{"role": "user", "content": self._long_prompt()}]
        body = chat_body(self._model.name, chat, ANSWER_TOKENS) if chat else b""
        async with self._manager.lease(self._model, 1, prompt=_prompt(body)) as lease:
            self._note_engine(lease)
            if chat:
                await self._ask(lease, chat_body(self._model.name, [_GREETING], 1))
                if self.found.asked.works:
                    await self._try_tools(lease)
                    await self._try_images(lease)
            # Last of all, as the slot is to hold this conversation then.
            answer = await self._ask(lease, body) if self.found.asked.works is not False else None
            await self._measure(lease)
            saves = bool(chat) and self._saves(lease)
        if answer is not None and saves:
            await self._try_restore([*chat, {"role": "assistant", "content": answer.text}])

    async def _chats(self) -> bool:
        """Whether it is asked for a chat."""
        endpoints = self._manager.overview.endpoints_of(self._model)
        if "chat/completions" not in endpoints or self._variant.engine_args.is_embedding:
            return False
        path = model_file(self._variant) if self._model.engine.has_server_options else None
        if path is None:
            return True
        try:
            header = await trio.to_thread.run_sync(read_header, path)
        except BadGguf:
            return True
        return not header.is_embedding

    def _note_engine(self, lease: Lease) -> None:
        info = lease.engine.info
        assert info is not None, "it is ready"
        self.found.load_s, self.found.slots = info.load_s, info.slots
        self.found.context = info.context
        if not self._variant.has_process:
            self.found.load_s = None

    # -- asking -------------------------------------------------------------------------------

    async def _ask(self, lease: Lease, body: bytes) -> Answered | None:
        """What it is for. None: it does not answer, or was not asked for a chat."""
        self._tell("reading a prompt")
        name, endpoints = self._model.name, self._manager.overview.endpoints_of(self._model)
        args = self._variant.engine_args
        try:
            if body:
                answer = await ask_chat(lease, body)
            elif args.is_on(RERANKING):
                await ask_ranking(lease, name)
                answer = None
            elif "embeddings" in endpoints:
                answer = await ask_embedding(lease, name, self._long_prompt())
            else:
                self.found.asked = Tried(None, "nothing that could be asked without a file")
                return None
        except AskFailed as error:
            self.found.asked = Tried(False, str(error))
            return None
        self.found.asked = Tried(True)
        if answer is not None and answer.usage is not None:
            lease.note_answer(answer.usage)
            speeds = lease.engine.speeds
            self.found.prompt_speed, self.found.speed = speeds.prompt, speeds.speed
        return answer

    async def _try_tools(self, lease: Lease) -> None:
        self._tell("calling a tool")
        self.found.tools = await _tried(ask_for_tool, lease, self._model.name)
        self._manager.remembering.note(self.found.key, tools=self.found.tools.works)

    async def _try_images(self, lease: Lease) -> None:
        media = lease.engine.info.media if lease.engine.info is not None else None
        if media is not None and "vision" not in media:
            self.found.images = Tried(None, "it takes none")
            return
        if media is None and self._variant.engine_args.has_projector is False:
            self.found.images = Tried(None, "it has no projector")
            return
        self._tell("looking at an image")
        self.found.images = await _tried(ask_about_image, lease, self._model.name)
        self._manager.remembering.note(self.found.key, images=self.found.images.works)

    # -- restoring ----------------------------------------------------------------------------

    def _saves(self, lease: Lease) -> bool:
        """Whether its cache outlives it; otherwise says why not."""
        kv, context = lease.engine.kv, lease.engine.info
        if kv is None or self._manager.kv.folder is None:
            self.found.restore = Tried(None, "its caches are not kept")
            return False
        if context is not None and context.context < LEAST_TOKENS + 2 * ANSWER_TOKENS:
            self.found.restore = Tried(None, "its context is too small for that")
            return False
        return True

    async def _try_restore(self, chat: Chat) -> None:
        """Stop the engine, start it again, and go on with the conversation."""
        self._tell("restarting, with its cache")
        await self._manager.unload(self._model.name)
        again = [*chat, {"role": "user", "content": "And what does the last one say?"}]
        body = chat_body(self._model.name, again, ANSWER_TOKENS)
        async with self._manager.lease(self._model, 1, prompt=_prompt(body)) as lease:
            restored = lease.engine.kv.restored_tokens if lease.engine.kv is not None else 0
            try:
                answer = await ask_chat(lease, body)
            except AskFailed as error:
                self.found.restore = Tried(False, f"after a restore, {error}")
                return
            if answer.usage is not None:
                lease.note_answer(answer.usage)
        counts = self._manager.kv.counts[self._model.name]
        verdict = self._manager.kv.verdicts.get(self.found.key)
        if verdict is not None:
            self.found.restore = Tried(verdict.helps, verdict.said)
        elif not counts.saves:
            self.found.restore = Tried(False, "nothing could be saved")
        elif not restored:
            said = f"of {counts.saved_tokens} saved tokens none were restored"
            self.found.restore = Tried(False, said)
        else:
            said = "its answer does not say how much was used"
            if answer.usage is not None and answer.usage.cached_tokens is not None:
                said = f"only {answer.usage.cached_tokens} of {restored} restored tokens were used"
            self.found.restore = Tried(False, said)

    # -- measuring ----------------------------------------------------------------------------

    async def _measure(self, lease: Lease) -> None:
        """Its memory, now that it has read a long prompt."""
        meter, pid = self._manager.meter, lease.engine.pid
        if meter is None or pid is None:
            return
        held = await trio.to_thread.run_sync(meter.read, pid, abandon_on_cancel=True)
        seen = [size for size in (held, self._manager.overview.pools()[0].measured_bytes) if size]
        if seen:
            self.found.memory_bytes = max(seen)
            self._manager.remembering.note(self.found.key, memory_bytes=max(seen))

    def _long_prompt(self) -> str:
        """Different each time, so that no cache has it."""
        tokens = min(PROMPT_TOKENS, self._variant.holds // 2)
        count = max(tokens // _SENTENCE_TOKENS, 1)
        first = secrets.randbelow(90) + 10
        return "".join(_SENTENCE.format(i + 1, i + first) for i in range(count))


async def _tried(ask: Callable[[Lease, str], Awaitable[None]], lease: Lease, name: str) -> Tried:
    try:
        await ask(lease, name)
    except AskFailed as error:
        return Tried(False, str(error))
    return Tried(True)


def _prompt(body: bytes) -> Prompt | None:
    return Prompt("chat/completions", body) if body else None
