"""TCP relays that break off in the middle of what goes through them."""

import contextlib
import random
import socket
import threading


class Relay:
    """Passes bytes on between its clients and a server, and then ends all.

    `up` and `down` are how many bytes of all connections together go to the server, and
    to the clients, before everything ends; None is without end. Nobody can connect
    afterwards.
    """

    def __init__(self, server, up=None, down=None):
        self.server = server
        self.left = {"up": up, "down": down}
        self.broken = False
        self.lock = threading.Lock()
        listener = socket.create_server(("127.0.0.1", 0))
        self.sockets = [listener]
        self.target = "{}:{}".format(*listener.getsockname())
        self._begin(self._accept, listener)

    def close(self):
        with self.lock:
            self.broken = True
            for one in self.sockets:
                with contextlib.suppress(OSError):  # The other side may be gone.
                    one.shutdown(socket.SHUT_RDWR)  # Wakes the thread that waits.
                one.close()
            self.sockets.clear()

    def _end(self):
        self.close()

    def _begin(self, function, *arguments):
        threading.Thread(target=function, args=arguments, daemon=True).start()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self.server)
                for side in (client, server):  # Small parts are not held back.
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self.lock:
                    if self.broken:
                        client.close()
                        server.close()
                        return
                    self.sockets += [client, server]
                self._begin(self._pass_on, client, server, "up")
                self._begin(self._pass_on, server, client, "down")

    def _pass_on(self, source, target, direction):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                passing = self._passing(direction, len(data))
                target.sendall(data[:passing])
                if passing < len(data):
                    self._end()
                    return
            target.shutdown(socket.SHUT_WR)

    def _passing(self, direction, size):
        """Give how many of so many bytes pass; fewer than all are the last."""
        with self.lock:
            if self.left[direction] is None:
                return size
            passing = min(size, self.left[direction])
            self.left[direction] -= passing
            return passing


class FlakyRelay(Relay):
    """Passes bytes on, but for outages of some seconds, after which all is well again.

    Nobody can connect in an outage, and no connection outlives its beginning.
    """

    def __init__(self, server, seconds):
        super().__init__(server)
        self.seconds = seconds
        self.cut = None
        self.outages = 0

    def go_down(self):
        """Begin an outage."""
        self.close()
        self.outages += 1
        timer = threading.Timer(self.seconds, self._come_back)
        timer.daemon = True
        timer.start()

    def lose(self, direction):
        """Begin an outage when the next bytes come, which are lost: "up" or "down"."""
        self.cut = direction

    def _come_back(self):
        host, port = self.target.split(":")
        with self.lock:
            if not self.broken:  # An outage that began in this one has ended it.
                return
            listener = socket.create_server((host, int(port)))
            self.broken = False
            self.sockets.append(listener)
        self._begin(self._accept, listener)

    def _passing(self, direction, size):
        with self.lock:
            if self.cut != direction:
                return size
            self.cut = None
            return 0

    def _end(self):
        self.go_down()


class CuttingRelay(FlakyRelay):
    """Passes bytes on, and cuts all connections at random ones once it is told to.

    `seed` draws where; `passed` is how many bytes have passed in each direction.
    """

    def __init__(self, server, seconds, seed):
        super().__init__(server, seconds)
        self.dice = random.Random(seed)
        self.passed = {"up": 0, "down": 0}
        self.mean_bytes = self.next_cut = None

    def begin_cuts(self, mean_bytes):
        """Cut as often in each direction: after so many of its bytes on the average."""
        with self.lock:
            self.mean_bytes = mean_bytes
            self._draw_next()

    def end_cuts(self):
        with self.lock:
            self.next_cut = None

    def _draw_next(self):
        direction = self.dice.choice(("up", "down"))
        pause = int(self.dice.expovariate(1 / self.mean_bytes[direction]))
        self.next_cut = direction, self.passed[direction] + pause

    def _passing(self, direction, size):
        with self.lock:
            passing = size
            if self.next_cut is not None and self.next_cut[0] == direction:
                passing = min(size, self.next_cut[1] - self.passed[direction])
            self.passed[direction] += passing
            if passing < size:
                self._draw_next()
            return passing
