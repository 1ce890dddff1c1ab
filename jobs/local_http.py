"""Asking a server on this machine. Needs nothing but the standard library, as jobs.doctor does not."""

import http.client

TIMEOUT_SECONDS = 10


def get_text(port: int, path: str) -> str:
    """What the server at a port answers at a path.

    Raises OSError, also for a status of 400 and above, and HTTPException for what is not HTTP.
    """
    # http.client, not urllib: a proxy of the environment has no business between two processes of this machine.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    if answer.status >= 400:
        raise OSError(f"http://127.0.0.1:{port}{path}: {answer.status} {answer.reason}: {text}")
    return text
