"""llama-swap's keys that have no counterpart here, and what to do instead."""

from __future__ import annotations

GLOBAL = {
    "logLevel": "run `trio-gateway serve --verbose` for more in the log",
    "logTimeFormat": "the log has a time in each line; nothing to set",
    "logToStdout": "the log goes to stderr; `trio-gateway logs MODEL` shows an engine's",
    "logRequests": "each request is in the log, and in `trio-gateway requests`",
    "captureBuffer": 'server.dumps_dir = "dumps" keeps requests and answers, as files',
    "performance": "/metrics and `trio-gateway top` show what the machine does; nothing to set",
    "startPort": "free ports are picked; nothing to set",
    "upstream": "what goes to /upstream/NAME/… always loads its model",
    "includeAliasesInList": "aliases can be used, and are shown with their model",
}
MODEL = {
    "metadata": "lists of models have what the gateway knows itself; put the rest in `description`",
    "compat": "WebSockets count as requests; nothing to set",
    "healthCheckTimeout": "llama-swap does not read it in a model; use `engine_startup_timeout`",
    "unloadTimeout": "`engine_stop_timeout` in server is for all engines",
}
# Read elsewhere.
GLOBAL_READ = frozenset(
    {
        "models", "macros", "healthCheckTimeout", "globalTTL", "unloadTimeout", "sendLoadingState",
        "apiKeys", "metricsMaxInMemory", "store", "ui", "hooks", "groups", "matrix", "routing",
        "peers", "profiles", "selectors",
    }
)  # fmt: skip
MODEL_READ = frozenset(
    {
        "cmd", "cmdStop", "proxy", "aliases", "env", "checkEndpoint", "ttl", "unlisted",
        "useModelName", "name", "description", "concurrencyLimit", "filters", "macros",
        "sendLoadingState", "timeouts", "capabilities",
    }
)  # fmt: skip
