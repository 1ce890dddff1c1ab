"""A server of the Open Inference Protocol v2 for tests, in threads of this process.

It misbehaves by the model's name: `slow` takes a second, `busy` answers 503 every other time, `wrong` gives other
scores, `json` answers without binary tensors, `page` with HTML, `nan` with no numbers.
"""

import json
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, socket
from threading import Thread

import numpy as np

from udfs.models.lean_xgboost import xgboost

LENGTH = "Inference-Header-Content-Length"


class OipServer(ThreadingHTTPServer):
    """Serves a model, under any name, from its file; `seen` has the number of requests and the rows of each."""

    daemon_threads = True

    def __init__(self, model: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.booster = xgboost.Booster(model_file=model)
        self.booster.set_param({"nthread": 1})
        self.seen = {"requests": 0, "rows": []}
        self._connections: list[socket] = []
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def process_request(self, request: socket, client_address) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def stop(self) -> None:
        """End it as the end of a process does: open connections break."""
        self.shutdown()
        self.server_close()
        for connection in self._connections:
            with suppress(OSError):  # it is closed
                connection.shutdown(SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        header = json.loads(body[: int(self.headers[LENGTH])])
        name = self.path.split("/")[3]
        rows = np.frombuffer(body[int(self.headers[LENGTH]) :], "<f4").reshape(header["inputs"][0]["shape"])
        self.server.seen["requests"] += 1
        self.server.seen["rows"].append(len(rows))
        if name == "slow":
            time.sleep(1)
        if name == "busy" and self.server.seen["requests"] % 2:
            self._answer(503, b"busy")
        elif name == "page":
            self._answer(200, b"<html>login</html>")
        elif name == "missing":
            self._answer(404, b'{"error": "no such model"}')
        else:
            self._score(name, rows, header["outputs"][0]["name"])

    def _score(self, name: str, rows: np.ndarray, output_name: str) -> None:
        scores = self.server.booster.inplace_predict(rows, missing=np.nan)
        scores = {"wrong": scores / 2, "nan": scores * np.nan}.get(name, scores)
        output = {"name": output_name, "shape": [len(rows), 2], "datatype": "FP32"}
        table = np.stack([1 - scores, scores], 1).astype("<f4")
        if name == "json":
            self._answer(200, json.dumps({"outputs": [output | {"data": table.ravel().tolist()}]}).encode())
            return
        label = {"name": "label", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
        output["parameters"] = {"binary_data_size": table.nbytes}
        head = json.dumps({"outputs": [label, output]}).encode()
        self._answer(200, head + bytes(4) + table.tobytes(), {LENGTH: str(len(head))})

    def _answer(self, status: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
