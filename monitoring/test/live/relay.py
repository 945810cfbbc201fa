"""Stands between the nodes, so that the test can cut them off from each other while clients and Prometheus reach them.

A process of its own: the test's threads must not get in the way of heartbeats. It takes `LISTEN=TARGET` pairs of
addresses as arguments and the lines `cut` and `join` on its standard input, and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK_BYTES = 256 << 10
CONNECT_SECONDS = 5


class Relay:
    def __init__(self) -> None:
        self.is_cut = False
        self.open: set[asyncio.StreamWriter] = set()

    async def serve(self, pair: str) -> None:
        listen, target = (side.rpartition(":") for side in pair.split("="))

        async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.join_ends(reader, writer, target[0], int(target[2]))

        await asyncio.start_server(taken, listen[0], int(listen[2]))

    async def join_ends(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        writers = [writer]
        self.open.add(writer)
        try:
            if self.is_cut:
                return
            far_reader, far_writer = await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_SECONDS)
            writers.append(far_writer)
            self.open.add(far_writer)
            if self.is_cut:
                return
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        except (OSError, asyncio.TimeoutError):
            pass  # The ends see it as a connection that broke.
        finally:
            for end in writers:
                self.open.discard(end)
                end.close()

    def cut(self) -> None:
        self.is_cut = True
        for writer in self.open:
            writer.transport.abort()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def main(pairs: list[str]) -> None:
    relay = Relay()
    for pair in pairs:
        await relay.serve(pair)
    words = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    while line := await words.readline():
        if line.strip() == b"cut":
            relay.cut()
        else:
            relay.is_cut = False


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
