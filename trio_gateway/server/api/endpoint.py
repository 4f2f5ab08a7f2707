"""Endpoint: one row of the table of endpoints, and what its fields may say."""

from __future__ import annotations

import enum

import msgspec


class Family(enum.Enum):
    """Whose API it is, and with it the shape of its errors."""

    OPENAI = "OpenAI"
    LLAMACPP = "llama.cpp"
    ANTHROPIC = "Anthropic"
    OLLAMA = "Ollama"
    GATEWAY = "gateway"


class Body(enum.Enum):
    """What a request carries."""

    NONE = "none"
    JSON = "JSON"
    JSON_OR_NONE = "JSON, or none"
    JSON_ARRAY = "JSON array"
    FORM = "multipart form"
    FORM_OR_JSON = "multipart form, or JSON"
    ANY = "anything"


class ModelIn(enum.Enum):
    """Where a request has the model's name. `BODY_OR_NONE`: the only model needs no name."""

    NOWHERE = "nowhere"
    BODY = "`model` in the body"
    BODY_OR_NONE = "`model` in the body; it may be left out if there is only one model"
    FORM = "the form field `model`"
    QUERY = "`?model=`; it may be left out if there is only one model"
    QUERY_OR_RUNNING = "`?model=`; without it the only model, or the only one that runs"
    PATH = "the path"


class Need(enum.Enum):
    """How the tokens that a request needs are counted."""

    CHAT = "the chat"
    RESPONSES = "the chat made of its input and instructions"
    MESSAGES = "the chat made of its system text and messages"
    PROMPT = "the prompt"
    INFILL = "everything around the gap"
    INPUT = "the largest input"
    CONTENT = "the largest content"
    RERANK = "the query with the largest document"
    UNCOUNTED = "not counted: any engine of the model will do"
    NO_ENGINE = "no engine is needed"

    # Each request looks up several of them, and enum's own hash is a Python function.
    __hash__ = object.__hash__


_READ = frozenset({Need.INPUT, Need.CONTENT, Need.RERANK})
_MADE_UNCOUNTED = frozenset({"audio/speech", "images/generations", "realtime"})


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    `name`: what engine types say that they serve. `paths`: the first is the one to show.
    `handler`: the method that answers, of the handler that has it (server/handlers).
    `content`: fields of the body, of which it must have one. `engine_path`: where engines have it;
    None: no engine has it, or it is wherever the client says. `streams`: an answer may be events.
    """

    name: str
    paths: tuple[str, ...]
    family: Family
    summary: str
    methods: tuple[str, ...] = ("POST",)
    body: Body = Body.JSON
    model_in: ModelIn = ModelIn.BODY
    need: Need = Need.UNCOUNTED
    content: tuple[str, ...] = ()
    engine_path: str | None = None
    streams: bool = False
    handler: str = "handle_relayed"

    @property
    def is_counted(self) -> bool:
        return self.need not in (Need.UNCOUNTED, Need.NO_ENGINE)

    @property
    def needs_engine(self) -> bool:
        return self.need is not Need.NO_ENGINE

    @property
    def only_reads(self) -> bool:
        """Whether nothing is generated for it: texts are turned into vectors, ranked, counted."""
        if self.need is Need.UNCOUNTED:
            return self.body in (Body.NONE, Body.JSON) and self.name not in _MADE_UNCOUNTED
        return self.need in _READ

    @property
    def is_direct(self) -> bool:
        """Answered before Quart's dispatch: by an engine, or as a stream of our own, and at paths
        without values."""
        return (self.needs_engine or self.streams) and not any("{" in path for path in self.paths)
