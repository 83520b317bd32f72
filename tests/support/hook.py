"""Where alerts are posted to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hook:
    """A real HTTP server, which answers as scripted, and then with 204."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.posts: list[tuple[str, str, dict[str, Any]]] = []  # path, id, content
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.posts.append((self.path, self.headers["Lavant-Alert-Id"], content))
                status = hook.answers.pop(0) if hook.answers else 204
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def prefix(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hooks/"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
