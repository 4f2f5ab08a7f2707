"""One model of llama-swap's: its command, its address and what requests to it get."""

from __future__ import annotations

import re
import shlex

from trio_gateway.converting import llama_swap_words
from trio_gateway.converting.command import (
    PORT_WORD,
    Command,
    Trained,
    only_ends_its_process,
    split_command,
)
from trio_gateway.converting.description import VARIABLE, Description, Table, expanded
from trio_gateway.converting.filters import rewrite_of
from trio_gateway.converting.llama_swap_names import Names
from trio_gateway.converting.values import Reader, lua_text, lua_texts, url_parts
from trio_gateway.finding.lua_text import Code, Commented, LuaValue

ASSUMED_CONTEXT = 8192  # tokens
_MEANINGLESS_CONTEXT = 4096  # of engines that serve no text
_LOCAL = ("localhost", "127.0.0.1", "::1")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ModelConverter:
    def __init__(self, description: Description, names: Names, trained: Trained) -> None:
        self._description, self._names, self._trained = description, names, trained

    def convert(self, name: str, reader: Reader) -> Table:
        """Raises NotConvertible: its command is none."""
        command = self._command(reader)
        is_llama = command.is_llama_server
        aliases = reader.texts("aliases")
        rewrite = rewrite_of(reader, name, aliases)
        model: Table = {"name": lua_text(name)}
        if aliases := self._names.take(reader, name, aliases):
            model["aliases"] = lua_texts(aliases)
        if words := _description(reader):
            model["description"] = lua_text(words)
        preset = "llamacpp" if is_llama else "openai"
        model["engine"] = Code(f"presets.engines.{preset}")
        if reader.flag("unlisted"):
            model["hidden"] = True
        self._times(reader, model)
        if not is_llama:
            self._openai(reader, command, model)
        elif reader.text("useModelName"):
            reader.remark("useModelName", "a llama-server serves one model, whatever it is called")
        self._stop(reader, model)
        if rewrite:
            model["rewrite"] = rewrite
        model["variants"] = [self._variant(reader, command, model)]
        for key in reader.table:
            if key not in llama_swap_words.MODEL_READ:
                what = llama_swap_words.MODEL.get(key, "unknown to this converter; left out")
                reader.remark(key, what)
        return model

    def _command(self, reader: Reader) -> Command:
        given = reader.table.get("cmd")
        text = (
            reader.text("cmd") if not isinstance(given, list) else shlex.join(reader.texts("cmd"))
        )
        for found in VARIABLE.finditer(text):
            value = reader.environment.get(found[1])
            # llama-swap puts it in before it splits the line.
            if value is not None and len(value.split()) != 1:
                text = text.replace(found[0], value)
                reader.remark("cmd", f"the words of the variable {found[1]} are as they are now")
        return split_command(reader.at("cmd"), text)

    def _times(self, reader: Reader, model: Table) -> None:
        ttl = reader.number("ttl")
        if ttl is not None and ttl >= 0 and ttl != self._description.server["engine_idle_timeout"]:
            model["engine_idle_timeout"] = ttl
        everywhere = self._description.server.get("loading_state") == "reasoning"
        here = reader.flag("sendLoadingState", everywhere)
        if here != everywhere:
            model["loading_state"] = "reasoning" if here else False
        timeouts = reader.inner("timeouts")
        if timeouts:
            what = "an engine on this machine has as long as it needs; nothing to set"
            reader.remark("timeouts", what)

    def _openai(self, reader: Reader, command: Command, model: Table) -> None:
        if served := reader.text("useModelName") or command.served_name:
            model["served_name"] = lua_text(served)
        path = reader.text("checkEndpoint")
        if path == "none":
            reader.remark(
                "checkEndpoint",
                "an engine is ready when /health or /v1/models answers 200; health_path names "
                "another path",
            )
        elif path and path != "/health":
            model["health_path"] = lua_text("/" + path.lstrip("/"))
        capabilities = Reader(
            self._description, reader.at("capabilities"), reader.inner("capabilities"),
            reader.environment,
        )  # fmt: skip
        endpoints = command.endpoints
        if not endpoints and capabilities.flag("reranker"):
            endpoints = ("rerank",)
        elif not endpoints and capabilities.texts("out") == ["image"]:
            endpoints = ("images/generations", "images/edits")
        if endpoints:
            model["endpoints"] = list(endpoints)

    def _stop(self, reader: Reader, model: Table) -> None:
        if not (text := reader.text("cmdStop")):
            return
        words = split_command(reader.at("cmdStop"), text).words
        if only_ends_its_process(words):
            reader.remark("cmdStop", "left out: the gateway ends its engines by itself")
            return
        model["stop_command"] = lua_texts(words)

    def _variant(self, reader: Reader, command: Command, model: Table) -> LuaValue:
        connect = self._connect(reader, command)
        written = command
        if command.is_llama_server and connect is None:
            written, open_host = command.without_address()
            if open_host is not None:
                reader.remark(
                    "cmd", f"--host {open_host} is left out: clients come through the gateway"
                )
        variant: Table = {"binary": lua_text(written.binary)}
        context = self._context(reader, command, model)
        variant["context"] = context
        variant["args"] = lua_texts(written.words[1:])
        if connect is not None:
            variant["connect"] = connect
        limit = reader.number("concurrencyLimit") or 0
        slots = command.args.slots if command.is_llama_server else None
        if limit > 0 and (slots is None or limit < slots):
            variant["parallel"] = limit
        if variables := self._variables(reader):
            variant["env"] = variables
        if command.has_relative_files:
            variant["workdir"] = "."
            reader.remark("cmd", "has paths that are not full; they begin at the folder of the "
                          "configuration")  # fmt: skip
        if command.in_container:
            reader.remark(
                "cmd",
                "a container's memory cannot be measured: `memory` in the variant says what it "
                "takes (docs/engines.md#docker)",
            )
        return variant

    def _context(self, reader: Reader, command: Command, model: Table) -> LuaValue:
        resolved = Command(tuple(expanded(word, reader.environment) for word in command.words))
        if found := resolved.context(self._trained):
            return found
        capabilities = Reader(
            self._description, reader.at("capabilities"), reader.inner("capabilities"),
            reader.environment,
        )  # fmt: skip
        if (stated := capabilities.number("context")) is not None and stated > 0:
            return stated
        if "endpoints" in model:
            return _MEANINGLESS_CONTEXT
        reader.remark(
            "cmd",
            f"names no context, so {ASSUMED_CONTEXT} is assumed; write the real one into `context` "
            "(and `-c`)",
        )
        return Commented(ASSUMED_CONTEXT, beside="assumed")

    def _connect(self, reader: Reader, command: Command) -> LuaValue | None:
        """None: the gateway picks a port, or the arguments name one."""
        proxy = reader.text("proxy")
        parts = url_parts(proxy.replace(PORT_WORD, "1"))
        if proxy and (parts.scheme != "http" or not parts.hostname):
            reader.remark("proxy", "left out: an engine here is at http://HOST:PORT; for one "
                          "elsewhere use presets.engines.remote")  # fmt: skip
        elif proxy:
            if parts.path.strip("/"):
                reader.remark("proxy", "its path is left out; a llama-server takes --api-prefix")
            if PORT_WORD in proxy and parts.hostname in _LOCAL:
                if command.has_port:
                    return None
            elif PORT_WORD not in proxy:
                return self._fixed(command, parts.hostname or "", url_parts(proxy).port)
            else:
                reader.remark("proxy", "an engine with a port of its own is on this machine")
        if command.is_llama_server or command.has_port or PORT_WORD in str(reader.table.get("env")):
            return None
        if (port := command.fixed_port) is not None:
            return f"http://127.0.0.1:{port}"
        reader.remark("cmd", f"says no port: write {PORT_WORD} where it belongs, or where it "
                      "listens into `connect`")  # fmt: skip
        return Commented("http://127.0.0.1:8080", beside="assumed")

    @staticmethod
    def _fixed(command: Command, host: str, port: int | None) -> LuaValue | None:
        if command.is_llama_server and host in _LOCAL and command.fixed_port == port:
            return None  # the gateway reads it off the arguments
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{80 if port is None else port}"

    @staticmethod
    def _variables(reader: Reader) -> Table:
        raw = reader.table.get("env")
        pairs = (
            [(k, str(v)) for k, v in raw.items()]
            if isinstance(raw, dict)
            else [(text.partition("=")[0], text.partition("=")[2]) for text in reader.texts("env")]
        )
        found: Table = {}
        for name, value in pairs:
            if _VARIABLE_NAME.fullmatch(name.strip()):
                found[name.strip()] = lua_text(value)
            else:
                reader.remark("env", "one entry is no NAME=value; left out")
        return found


def _description(reader: Reader) -> str:
    name, words = reader.text("name").strip(), reader.text("description").strip()
    return f"{name}: {words}" if name and words else name or words
