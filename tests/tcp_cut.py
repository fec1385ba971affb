"""A TCP proxy that cuts a connection after some bytes of the server's answers."""

from __future__ import annotations

import select
import socket
import threading

from embedded.ports import LOCALHOST

PIECE = 65_536


class CuttingProxy:
    """Forwards connections to a server.

    The first connection to which the server has sent more than ``after`` bytes is cut, once.
    """

    def __init__(self, port: int, after: int, host: str = LOCALHOST) -> None:
        self.cuts = 0
        self._after = after
        self._target = (LOCALHOST, port)
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        answered = 0
        with client, server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    try:
                        data = ready.recv(PIECE)
                        if not data:
                            return
                        (client if ready is server else server).sendall(data)
                    except OSError:
                        return
                    answered += len(data) if ready is server else 0
                    if answered > self._after and not self.cuts:
                        self.cuts += 1
                        return
