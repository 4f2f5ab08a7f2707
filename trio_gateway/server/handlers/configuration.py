"""ConfigurationHandler: the configuration in force without its secrets, and what it lacks."""

from __future__ import annotations

import os

import trio

from trio_gateway.config.missing import missing
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.reloading import Reloader


class ConfigurationHandler:
    def __init__(self, config: GatewayConfig, reloader: Reloader) -> None:
        self._config, self._reloader = config, reloader

    async def handle_configuration(self, endpoint: Endpoint, call: Call) -> Answer:
        """What is missing is looked for anew, in a thread: files come and go. `mistakes`: of the
        file as it is by now, where a reload came to nothing."""
        # Imported here, as in the Reloader: few look at it.
        from trio_gateway.config.shown import hider, shown_configuration

        hide = hider(self._config, os.environ)
        lacks = await trio.to_thread.run_sync(missing, self._config)
        return json_answer(
            {
                "source": str(self._config.source),
                "mistakes": [hide(mistake) for mistake in self._reloader.mistakes],
                "notes": [hide(str(note)) for note in self._config.notes],
                "missing": [hide(lack.text) for lack in lacks],
                "configuration": shown_configuration(self._config),
            }
        )
