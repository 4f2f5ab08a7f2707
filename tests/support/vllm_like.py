"""A program with vLLM's command line and API, in a few lines: `serve MODEL --port N`.

It streams as many tokens as it is asked for, without hurry. Once a client leaves in the middle, it
writes the file that `LEFT` names. It needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN_S = 0.02


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model, context = "", 0

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._answer({"data": [{"id": self.model, "max_model_len": self.context}]})
        else:
            self._answer({}, 200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/chat/completions"):
            self._answer({}, 404)
        elif asked["model"] != self.model:
            self._answer({"error": {"message": f"no model {asked['model']}"}}, 404)
        elif asked.get("stream"):
            self._stream(asked["max_tokens"])
        else:
            self._answer({"choices": [{"message": {"content": f"from {self.model}"}}]})

    def _stream(self, tokens: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        event = json.dumps({"choices": [{"delta": {"content": "tok "}}]})
        try:
            for text in [*[event] * tokens, "[DONE]"]:
                self._chunk(f"data: {text}\n\n".encode())
                time.sleep(TOKEN_S)
            self._chunk(b"")
        except ConnectionError:
            Path(os.environ["LEFT"]).touch()
            self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _answer(self, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        print(format % args, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("vllm")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, default=4096)
    options = parser.parse_args()
    Handler.model, Handler.context = options.model, options.max_model_len
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
