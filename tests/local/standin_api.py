"""A stand-in for the API, run as a script: answers /readyz, and with what it was told by its environment on /told."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

TOLD = (
    "MEGATRON_ENV",
    "MEGATRON_DATA_DIR",
    "DATABASE_URL",
    "REDIS_URL",
    "MEGATRON_ADMIN_PASSWORD_HASH",
    "SERPER_API_URL",
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({name: os.environ.get(name) for name in TOLD}).encode() if self.path == "/told" else b"ready"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
HTTPServer((os.environ["MEGATRON_HOST"], int(os.environ["MEGATRON_PORT"])), Handler).serve_forever()
