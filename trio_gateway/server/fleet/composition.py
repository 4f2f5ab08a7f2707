"""A configuration with the models of other gateways in it, as they list them. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.reading.choices import settled
from trio_gateway.config.schema import GatewayConfig, ModelConfig, PeerConfig, VariantConfig
from trio_gateway.server.fleet.listing import ListedModel

# By the name of the entry: what each of its URLs has listed, in their order.
Listings = Mapping[str, Mapping[str, Sequence[ListedModel]]]
# About one engine, not about a request that names its model: they are asked for there.
_OF_AN_ENGINE = frozenset({"props", "slots", "slots/{slot}", "lora-adapters"})
_LOOK_S = 0.1  # a guess at its "load": nothing is loaded here, it is one look at its health


def with_peers(config: GatewayConfig, listings: Listings) -> tuple[GatewayConfig, list[str]]:
    """And what is to be said of it. `config`: as its file has it.

    A name that something of this configuration has is left to that, and of two entries to the
    first: a new model there must not take the place of one here."""
    notes = list[str]()
    owners = {
        name: f'the model "{model.name}"'
        for model in config.models
        for name in (model.name, *model.aliases)
    }
    owners |= {c.name: f'the choice "{c.name}"' for c in config.written_choices}
    models = [*config.models]
    for peer in config.peers:
        notes += _unknown(peer, listings.get(peer.name, {}))
        for found, urls in _listed(peer, listings.get(peer.name, {})):
            if (owner := owners.get(found.name)) is not None:
                notes.append(
                    f'{peer.name}: its "{found.name}" is left out, as {owner} has that name here; '
                    "an entry of its own with `served_name` gives it another one"
                )
                continue
            aliases = tuple(alias for alias in found.aliases if alias not in owners)
            owners |= dict.fromkeys((found.name, *aliases), f'"{found.name}" of {peer.name}')
            models.append(_model(peer, found, urls, aliases))
    choices = settled(config.written_choices, models)
    return msgspec.structs.replace(config, models=tuple(models), choices=choices), notes


def _unknown(peer: PeerConfig, listings: Mapping[str, Sequence[ListedModel]]) -> Iterator[str]:
    """Names that are wanted and nobody lists, once all have listed something."""
    if peer.models is None or any(url not in listings for url in peer.options.urls):
        return
    listed = {model.name: None for url in peer.options.urls for model in listings[url]}
    for name in peer.models:
        if name not in listed:
            hint = difflib.get_close_matches(name, listed, n=3, cutoff=0.4) or [*listed][:5]
            near = f"; it has: {', '.join(hint)}" if hint else ""
            yield f'{peer.name}: no model "{name}" is listed there{near}'


def _listed(
    peer: PeerConfig, listings: Mapping[str, Sequence[ListedModel]]
) -> Iterator[tuple[ListedModel, tuple[str, ...]]]:
    """Each model that is wanted, as the first URL has it that lists it, with all that do."""
    having = dict[str, list[tuple[str, ListedModel]]]()
    for url in peer.options.urls:
        for model in listings.get(url, ()):
            if peer.models is None or model.name in peer.models:
                having.setdefault(model.name, []).append((url, model))
    for found in having.values():
        first = found[0][1]
        # What any of them may be asked for, all of them must be able to hold.
        largest = min(max(model.contexts) for _, model in found)
        contexts = tuple(context for context in first.contexts if context <= largest) or (largest,)
        urls = tuple(url for url, _ in found)
        yield msgspec.structs.replace(first, contexts=contexts), urls


def _model(
    peer: PeerConfig, found: ListedModel, urls: tuple[str, ...], aliases: tuple[str, ...]
) -> ModelConfig:
    options = msgspec.structs.replace(
        peer.options,
        served_name=found.name,  # it chooses the variant: it counts better than this one can
        urls=urls,
        sites=tuple(site for site in peer.options.sites if site.url in urls),
    )
    return ModelConfig(
        name=found.name,
        aliases=aliases,
        engine=ENGINE_TYPES["remote"],
        pool=peer.pool,
        variants=tuple(
            VariantConfig(
                name=str(context),
                binary="",
                args=(),
                context=context,
                connect=None,
                env={},
                workdir=Path(),
                parallel=peer.parallel,
                memory_bytes=0,
                timeouts=peer.timeouts,
                load_time_s=_LOOK_S,
                options=options,
            )
            for context in found.contexts
        ),
        hidden=peer.hidden,
        description=found.description,
        endpoints=None if found.endpoints is None else found.endpoints - _OF_AN_ENGINE,
        capabilities=found.capabilities,
        peer=peer.name,
    )
