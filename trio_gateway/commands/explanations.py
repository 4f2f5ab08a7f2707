"""Where an explanation of a request comes from: the running gateway, or a fresh one made here."""

from __future__ import annotations

import msgspec
import trio

from trio_gateway.commands.gateway_client import GatewayClient
from trio_gateway.commands.gateway_failures import GatewayFailed, NoGateway, Place
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.ledger.file import own_ledger
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.counting.vocabulary import Vocabulary
from trio_gateway.models.explanation import Explanation, explain
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.models.names import ModelNames
from trio_gateway.server.access.permissions import EVERYTHING
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.reading.explained import asked_to_explain, open_to_explain
from trio_gateway.server.relay.choices import Choices
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.tasks import open_flat_nursery


class ExplainFailed(GatewayFailed):
    """The request cannot be explained; the message says why."""


def ask_gateway(
    place: Place, body: bytes, key: str | None = None, endpoint: str | None = None
) -> Explanation | None:
    """The running gateway's own answer; None if none answers there.

    Raises:
        GatewayFailed: it answered with an error.
    """
    try:
        found = GatewayClient(place, key).post("/gateway/explain", body, {"endpoint": endpoint})
        return msgspec.convert(found, Explanation)
    except NoGateway:
        return None
    except msgspec.ValidationError:
        raise GatewayFailed(f"{place} is not a gateway of this version; start it again") from None


def explain_offline(config: GatewayConfig, body: bytes, endpoint: str | None = None) -> Explanation:
    """The same without a gateway: no engine runs, so the model's own vocabulary counts the tokens.

    Raises:
        ExplainFailed: the request is wrong.
    """
    try:
        return trio.run(_explain_offline, config, body, endpoint)
    except ApiError as error:
        raise ExplainFailed(str(error)) from None
    except RecursionError:
        raise ExplainFailed("the request is nested too deeply") from None


async def _explain_offline(config: GatewayConfig, body: bytes, endpoint: str | None) -> Explanation:
    manager = EngineManager(config, ledger=own_ledger())
    vocabulary = Vocabulary(None, config.secret_variables)
    counter = TokenCounter(manager.overview, vocabulary, None, config.secret_variables)
    selector = ModelSelector(config, manager.overview, counter)
    names = ModelNames(config, manager.overview.contexts_of)
    choices = Choices(config.choices, manager.overview)
    preparer = Preparer(names, manager.overview, selector, choices=choices)
    asked = asked_to_explain(preparer, open_to_explain(endpoint, body), EVERYTHING)
    carryover = config.server.kv_carryover
    async with open_flat_nursery() as nursery:
        await nursery.start(vocabulary.run)
        if carryover is not None and carryover.persist:
            await nursery.start(manager.kv.run)
        await manager.remembering.recall()
        result = await explain(selector, counter, manager.overview, manager.kv, asked)
        nursery.cancel_scope.cancel(reason="the explanation is complete")
    return result
