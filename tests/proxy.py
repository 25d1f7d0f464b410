"""A TCP proxy before an SSH server that cuts its connections, at a byte or on demand, and counts what it delivered.

- `close`: both sides see the end at once; `half`: only the client does, the server's side stays open, as when a cable is pulled;
- `stall`: nobody sees anything, bytes just stop.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal

How = Literal["close", "half", "stall"]
Plan = Callable[[], tuple[int, How] | None]

BLOCK = 1 << 16


class Proxy:
    """Listens on `port` and leads to the local port `target`, as a context manager.

    `plan` is asked for each connection: after how many bytes to the server to cut it, and how; None leaves it whole.
    """

    def __init__(self, target: int, plan: Plan = lambda: None) -> None:
        self.plan = plan
        self.up = 0  # bytes delivered to the server
        self.down = 0  # bytes delivered to the client
        self.cuts = 0
        self.connections = 0
        self._target = target
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _end(self._listener)
        self.cut_all()

    def cut_all(self) -> None:
        """End every connection, half-open ones too."""
        with self._lock:
            for one in self._open:
                _end(one)

    def _serve(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        plan = self.plan()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self.connections += 1
            self._open += [client, server]
        down = threading.Thread(target=self._down, args=(server, client), daemon=True)
        down.start()
        self._up(client, server, plan)
        down.join()
        with self._lock:
            # Here only, when no thread waits on them: a number closed under a waiting thread may be another connection's next.
            for one in (client, server):
                self._open.remove(one)
                one.close()

    def _up(self, client: socket.socket, server: socket.socket, plan: tuple[int, How] | None) -> None:
        left, how = plan or (-1, "close")
        with contextlib.suppress(OSError):
            while left:
                block = client.recv(min(BLOCK, left) if left > 0 else BLOCK)
                if not block:
                    break
                server.sendall(block)
                left -= len(block) if left > 0 else 0
                with self._lock:
                    self.up += len(block)
        if left == 0:
            with self._lock:
                self.cuts += 1
            if how == "stall":
                return
        _end(client)
        if left or how == "close":
            _end(server)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := server.recv(BLOCK):
                with contextlib.suppress(OSError):  # the client's side may be cut while the server's stays open
                    client.sendall(block)
                    with self._lock:
                        self.down += len(block)
        _end(client)


def _end(one: socket.socket) -> None:
    """End both directions at once, also for a thread that waits in recv."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
