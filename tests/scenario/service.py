"""What the servers of the scenario share."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        # Hanging up is one of the things that are asked for.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Calls `routes[(method, path)](query, body, headers)`, which gives (status, headers, object)."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    routes = {}

    def log_message(self, *_):
        pass

    def answer(self):
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        route = self.routes.get((self.command, url.path))
        if route is None:
            status, headers, value = 404, {}, {"error": f"no {self.command} {url.path}"}
        else:
            status, headers, value = route(query, body, self.headers)
        text = json.dumps(value).encode()
        self.send_response(status)
        for name, content in headers.items():
            self.send_header(name, content)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = answer


def serve(routes, port_file):
    """Serves on a free port of the loopback interface, and writes the address once it listens."""
    server = Server(("127.0.0.1", 0), type("Routes", (Handler,), {"routes": routes}))
    address = f"http://127.0.0.1:{server.server_address[1]}"
    partial = Path(f"{port_file}.partial")
    partial.write_text(address, encoding="ascii")
    os.replace(partial, port_file)
    server.serve_forever()
