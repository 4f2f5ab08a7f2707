"""ModelFiles: what the models' files say, read when a client asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import trio

from trio_gateway.config.schema import ModelConfig
from trio_gateway.config.server_options import MODEL, PROJECTOR
from trio_gateway.config.template_choice import template_choice
from trio_gateway.gguf.header import GgufHeader, read_header, read_tensors
from trio_gateway.gguf.metadata import BadGguf
from trio_gateway.gguf.shards import files_of_model
from trio_gateway.gguf.tensors import TensorTotals
from trio_gateway.models.model_facts import ModelFacts

READ_LIMIT_S = 5.0  # what is slower, is not known yet: a disk that hangs must not hang clients
_TEMPLATE_BYTES_MAX = 1 << 20

_Read = TypeVar("_Read")


class _Stamp(NamedTuple):
    """A file, or all parts of one, as it was when it was read."""

    modified_ns: int
    size_bytes: int


class _Weights(NamedTuple):
    """What the file of a model says."""

    header: GgufHeader | None
    tensors: TensorTotals | None


class _Cache(Generic[_Read]):
    """What files of one kind said, until they change."""

    def __init__(self, read: Callable[[str], _Read], parts: Callable[[Path], list[Path]]) -> None:
        self._read_file, self._parts = read, parts
        self.known: Mapping[str, tuple[_Stamp, _Read]] = {}

    def update(self, paths: Sequence[str]) -> None:
        """Read what is new of these. Blocks."""
        stamps = {path: stamp for path in paths if path and (stamp := self._stamp_of(path))}
        known = {path: read for path, read in self.known.items() if path not in paths}
        for path, stamp in stamps.items():
            before = self.known.get(path)
            is_new = before is None or before[0] != stamp
            known[path] = (stamp, self._read_file(path)) if is_new or before is None else before
        self.known = known

    def _stamp_of(self, path: str) -> _Stamp | None:
        try:
            parts = [part.stat() for part in self._parts(Path(path))]
        except (OSError, ValueError):  # a NUL byte
            return None
        return _Stamp(max(p.st_mtime_ns for p in parts), sum(p.st_size for p in parts))


class ModelFiles:
    """Of each model the files that its largest variant names. What was read is kept until a file
    changes."""

    def __init__(self) -> None:
        self._weights = _Cache(_read_weights, files_of_model)
        self._headers = _Cache(_header_of, lambda path: [path])
        self._texts = _Cache(_read_text, lambda path: [path])
        # The first clients come together; one reading serves them all.
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def facts_of(self, models: Sequence[ModelConfig]) -> list[ModelFacts]:
        """For each model, in their order. The first time: 0.02 s for each file."""
        named = [_named_by(model) for model in models]
        if any(any(paths) for paths in named):
            with trio.move_on_after(READ_LIMIT_S):
                # A client that goes away must not wait for a slow disk; the thread ends by itself.
                await trio.to_thread.run_sync(
                    self._update, named, abandon_on_cancel=True, limiter=self._one_at_a_time
                )
        return [self._facts(paths) for paths in named]

    def _update(self, named: Sequence[_Named]) -> None:
        self._weights.update([paths.weights for paths in named])
        self._texts.update([paths.template for paths in named])
        self._headers.update([paths.projector for paths in named])

    def _facts(self, paths: _Named) -> ModelFacts:
        _, template = self._texts.known.get(paths.template, (None, None))
        _, projector = self._headers.known.get(paths.projector, (None, None))
        facts = partial(ModelFacts, template=template, projector=projector)
        if (found := self._weights.known.get(paths.weights)) is None:
            return facts()
        stamp, (header, tensors) = found
        return facts(
            size_bytes=stamp.size_bytes,
            modified_s=stamp.modified_ns / 1e9,
            header=header,
            tensors=tensors,
        )


class _Named(NamedTuple):
    """The paths in a variant's options; empty where it names none."""

    weights: str
    template: str
    projector: str


def _named_by(model: ModelConfig) -> _Named:
    variant = model.variants[-1]
    args, has_options = variant.engine_args, model.engine.has_server_options
    template = template_choice(args).file if has_options else None
    projector = args.value(PROJECTOR) if has_options else None
    found = (args.value(MODEL), template, projector)
    return _Named(*(str(variant.workdir / name) if name else "" for name in found))


def _read_weights(path: str) -> _Weights:
    header = _header_of(path)
    tensors = header.tensors if header is not None else None
    for part in files_of_model(Path(path)):
        if tensors is not None and str(part) != path:
            try:
                more = read_tensors(part)
            except BadGguf:
                more = None
            tensors = None if more is None else tensors.with_part(more)
    return _Weights(header, tensors)


def _header_of(path: str) -> GgufHeader | None:
    try:
        return read_header(Path(path))
    except BadGguf:
        return None


def _read_text(path: str) -> str | None:
    """The beginning of a file, as text; None: it cannot be read."""
    if not Path(path).is_file():  # nobody may write to the other end of a pipe
        return None
    try:
        with open(path, "rb") as file:
            return file.read(_TEMPLATE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return None
