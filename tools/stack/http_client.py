"""HTTP requests to a server on this machine."""

import http.client

TIMEOUT_SECONDS = 10


def get_text(port: int, path: str) -> str:
    """The response of the server at a port to a GET request for a path.

    Raises OSError, also for a status of 400 and above, and HTTPException for a response that is not HTTP.
    """
    return _ask("GET", port, path)


def patch(port: int, path: str) -> None:
    """Send a PATCH request for a path to the server at a port; raises like get_text."""
    _ask("PATCH", port, path)


def post(port: int, path: str) -> str:
    """Send a POST request with an empty JSON object to the server at a port; returns and raises like get_text."""
    return _ask("POST", port, path, "{}")


def _ask(method: str, port: int, path: str, body: str | None = None) -> str:
    # http.client, not urllib: a proxy of the environment has no business between two processes of this machine.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    if answer.status >= 400:
        raise OSError(f"http://127.0.0.1:{port}{path}: {answer.status} {answer.reason}: {text}")
    return text
