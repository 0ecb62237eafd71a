"""Asks the admin listener of a server, as those who watch it do."""

import http.client
import socket


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = connect(self._path, self.timeout)


def connect(address, timeout=30):
    """Open a connection to a Unix socket's path, or to a host and port."""
    if isinstance(address, tuple):
        return socket.create_connection(address, timeout)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    connection.connect(str(address))
    return connection


def ask(address, target="/healthz", method="GET", body=None, headers=None, timeout=30):
    """Give the status and the body of the answer, as text."""
    status, _, text = fetch(address, target, method, body, headers, timeout)
    return status, text.decode()


def fetch(address, target, method="GET", body=None, headers=None, timeout=30):
    """Give the status, the headers and the body of the answer."""
    connection = _Connection(address, timeout)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def scrape(address):
    """Give the metrics by name and labels, as they are written: `a{b="c"}`."""
    status, text = ask(address, "/metrics")
    assert status == 200
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    metrics = {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines)}
    assert len(metrics) == len(lines), "a metric is there twice"
    return metrics
