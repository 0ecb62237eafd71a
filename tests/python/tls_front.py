"""Certificates, and servers that stand before a real one: TLS, and a recorder."""

import asyncio
import contextlib
import ssl
import subprocess
import threading
from concurrent import futures

import grpc

# More than grpc can count to.
_FOR_EVER_S = 1e8
_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Authority:
    """Signs certificates, by the openssl program; all files are in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._openssl(
            *("req", "-x509", "-days=1", "-subj=/CN=authority", "-out", self.ca),
            *self._new_key(self._key),
        )

    def issue(self, name, days=1, names=_NAMES):
        """Issue a certificate; give its file, and that of its key."""
        made, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extensions = made.with_suffix(".csr"), made.with_suffix(".ext")
        extensions.write_text(f"{names}\n")
        self._openssl("req", f"-subj=/CN={name}", "-out", request, *self._new_key(key))
        self._openssl(
            *("x509", "-req", "-in", request, "-out", made, "-days", str(days)),
            *("-CA", self.ca, "-CAkey", self._key, "-extfile", extensions),
        )
        return made, key

    def _new_key(self, file):
        curve = "ec_paramgen_curve:prime256v1"
        return "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", file

    def _openssl(self, *words):
        words = [part for word in words for part in _split(word)]
        subprocess.run(["openssl", *words], check=True, capture_output=True)


def _split(word):
    """Give the two words of ``-option=value``."""
    if isinstance(word, str) and word.startswith("-") and "=" in word:
        return word.split("=", 1)
    return [str(word)]


class TlsFront:
    """Speaks TLS, and passes the bytes on to a target; a context manager.

    - `shown`: the files of its certificate and key.
    - `ca`: who must have signed the certificates of clients; None: they need none.
    """

    def __init__(self, target, shown, ca=None):
        self._upstream = target
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*shown)
        context.set_alpn_protocols(["h2"])
        if ca is not None:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self._context = context
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        server = self._run(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        )
        self._server = server
        self.target = "{}:{}".format(*server.sockets[0].getsockname())
        return self

    def __exit__(self, *_error):
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self):
        """End all connections."""

        async def abort():
            for writer in list(self._writers):
                writer.transport.abort()

        self._run(abort())

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _serve(self, reader, writer):
        kind, _, path = self._upstream.partition(":")
        if kind == "unix":
            above = await asyncio.open_unix_connection(path)
        else:
            above = await asyncio.open_connection(kind, path)
        self._writers |= {writer, above[1]}
        await asyncio.gather(
            self._pass_on(reader, above[1]), self._pass_on(above[0], writer)
        )

    async def _pass_on(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()


class Recorder(grpc.GenericRpcHandler):
    """Passes calls on to a server, and keeps their metadata; a context manager.

    - `calls`: the name of each call's method, and its metadata.
    - `accepted`: the only authorization that is let through; None: any, or none.
    """

    def __init__(self, server):
        self.calls = []
        self.accepted = None
        self._channel = grpc.insecure_channel(server.target)
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((self,))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_error):
        self._server.stop(None).wait()
        self._channel.close()

    def tokens(self, method=None):
        """List what was in `authorization`, of one method if it is given."""
        return [
            metadata.get("authorization")
            for name, metadata in self.calls
            if method in (None, name)
        ]

    def service(self, details):
        metadata = dict(details.invocation_metadata)
        self.calls.append((details.method.rsplit("/", 1)[1], metadata))
        passed = [(k, v) for k, v in metadata.items() if k.startswith("backboned-")]
        method = self._channel.stream_stream(details.method)

        def run(messages, context):
            if self.accepted not in (None, metadata.get("authorization")):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "Jwt is expired")
            left = context.time_remaining()
            limit = left if left is not None and left < _FOR_EVER_S else None
            call = method(messages, metadata=passed, timeout=limit)
            context.add_callback(call.cancel)
            try:
                yield from call
            except grpc.RpcError as error:
                context.set_trailing_metadata(error.trailing_metadata() or ())
                context.abort(error.code(), error.details())

        return grpc.stream_stream_rpc_method_handler(run)
