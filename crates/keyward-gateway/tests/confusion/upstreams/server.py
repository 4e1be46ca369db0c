"""An API on Python that decides its route from the path as `urllib` and `posixpath` read it, and
tells in its log what it did. Bodies are read by hand, as WSGI servers do."""

import json
import posixpath
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

LOG = open("{{folder}}/told", "a", encoding="utf-8")
LOCK = threading.Lock()


def tell(**entry):
    with LOCK:
        LOG.write(json.dumps(entry) + "\n")
        LOG.flush()


def route(path):
    if path == "/v1/reports":
        return "reports"
    if path == "/v1/reports:build":
        return "build"
    if re.fullmatch(r"/v1/reports/[^/]+", path):
        return "report"
    if re.fullmatch(r"/v1/reports/[^/]+/files/[^/]+", path):
        return "file"
    return "admin" if "admin" in path.lower() else "other"


def executed(target):
    path = unquote(target.split("?", 1)[0])
    normal = posixpath.normpath(path)
    return normal + "/" if path.endswith("/") and not normal.endswith("/") else normal


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        try:
            body = self.body()
        except (ConnectionError, ValueError):
            # the caller gave up within the body: nothing is executed
            self.close_connection = True
            return
        path = executed(self.path)
        # as CGI names them: what two spellings would become one of
        cgi = [[name.upper().replace("-", "_"), value] for name, value in self.headers.items()]
        headers = [[name.lower(), value] for name, value in self.headers.items()]
        tell(method=self.command, target=self.path, executed=path, route=route(path),
             headers=headers, cgi=cgi, trailers=self.trailers, body=body.decode("latin-1"))
        self.send_response(200)
        self.send_header("content-length", "8")
        self.end_headers()
        self.wfile.write(b"executed" if self.command != "HEAD" else b"")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer

    def body(self):
        self.trailers = []
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self.chunks()
        return self.exactly(int(self.headers.get("content-length", "0")))

    def exactly(self, count):
        data = self.rfile.read(count)
        if len(data) < count:
            raise ConnectionError
        return data

    def chunks(self):
        body = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            if size == 0:
                break
            body += self.exactly(size)
            self.exactly(2)
        while (line := self.rfile.readline()).strip():
            self.trailers.append(line.split(b":")[0].decode("latin-1").lower())
        return body

    def send_error(self, code, message=None, explain=None):
        tell(garbage=f"{code} {message}")
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


Server(("127.0.0.1", {{port}}), Handler).serve_forever()
