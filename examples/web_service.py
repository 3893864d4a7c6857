"""A web service with a standby: it numbers orders, and no order is lost or numbered twice.

    pip install aiohttp
    python examples/web_service.py one 8081         # on one node
    python examples/web_service.py two 8082         # on another one

    curl -d "two coffees" http://127.0.0.1:8081/orders      {"order": 1, "by": "one"}
    curl http://127.0.0.1:8081/orders/1                     two coffees

One instance serves. The others answer 503 and say which one does: a proxy in front of them, or the client itself,
tries the next. When the one that serves is gone, the next one continues with the number after the last order. If a
client gets no answer, its order may have been taken or not, as always.
"""

import asyncio
import signal
import sys

from aiohttp import web

from ckpt_client import AsyncLeadership, AsyncTable, CheckpointError, ha


class Service:
    """What the instance knows while it leads."""

    def __init__(self, name: str, table: AsyncTable) -> None:
        self.name = name
        self.table = table
        self.leadership: AsyncLeadership | None = None
        self.orders: dict[int, bytes] = {}
        self.last = 0

    async def serve(self, state: dict[bytes, bytes], leadership: AsyncLeadership) -> None:
        """Answer requests until the leadership is lost: then `ha.run_async` cancels this."""
        self.orders = {int(key): text for key, text in state.items()}
        self.last = max(self.orders, default=0)
        self.leadership = leadership
        print(f"{self.name} serves, and continues after order {self.last}", flush=True)
        await leadership.lost

    @property
    def serves(self) -> bool:
        """False at once after a pause in which another instance may have begun to serve."""
        return self.leadership is not None and not self.leadership.lost.is_set()

    async def take_order(self, request: web.Request) -> web.Response:
        """POST /orders: number an order, and answer once it is safe."""
        text = await request.read()
        if not self.serves:
            return await self.refer()
        self.last += 1
        number = self.last
        try:
            await self.table.write(str(number), text)  # LeadershipLost if another instance serves by now.
        except CheckpointError as error:
            return web.json_response({"error": str(error)}, status=503)
        self.orders[number] = text
        return web.json_response({"order": number, "by": self.name}, status=201)

    async def show_order(self, request: web.Request) -> web.Response:
        """GET /orders/NUMBER: the order, as it was taken."""
        if not self.serves:
            return await self.refer()
        text = self.orders.get(int(request.match_info["number"]))
        return web.Response(status=404) if text is None else web.Response(body=text)

    async def refer(self) -> web.Response:
        """Say which instance serves."""
        try:
            leader = await self.table.leader()
        except CheckpointError as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.json_response({"serves": leader and leader.name}, status=503)


async def main(name: str, port: int) -> None:
    """Answer on a port of loopback, until SIGTERM; then the next instance serves at once."""
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with await AsyncTable.open("orders", 10_000, 4096, 64) as table:
        service = Service(name, table)
        app = web.Application()
        app.add_routes([web.post("/orders", service.take_order)])
        app.add_routes([web.get(r"/orders/{number:\d{1,9}}", service.show_order)])
        runner = web.AppRunner(app, shutdown_timeout=1.0)  # For clients that are connected and send nothing.
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            await ha.run_async(service.serve, table=table, name=name)
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))
    except asyncio.CancelledError:
        sys.exit(0)
    except CheckpointError as error:
        sys.exit(f"the service is lost: {error}")
