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
    connection = _Connection(address, timeout)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
