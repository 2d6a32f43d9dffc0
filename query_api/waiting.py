"""Wait for a turn to ask ClickHouse, fairly between tenants and not for ever."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from ingest.contract import metrics
from ingest.contract.errors import QueryError, StoreUnavailable
from query_api.turns import Turns


class Queue:
    """Turns that are waited for.

    Args:
        going_max, of_tenant_max, waiting_max: as of `Turns`.
        wait_s_max: who waited longer is refused.
        retry_after_s: what a tenant is told that asks too much at once.
    """

    def __init__(self, *, going_max: int, of_tenant_max: int, waiting_max: int, wait_s_max: float, retry_after_s: int) -> None:
        self.turns: Turns[asyncio.Future[None]] = Turns(
            going_max=going_max, of_tenant_max=of_tenant_max, waiting_max=waiting_max
        )
        metrics.QUERY_QUESTIONS.labels("going").set_function(lambda: self.turns.going)
        metrics.QUERY_QUESTIONS.labels("waiting").set_function(self.turns.waiting)
        self._wait_s_max = wait_s_max
        self._retry_after_s = retry_after_s

    @contextlib.asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Hold a turn within the block.

        Raises:
            QueryError: 429, the tenant's own questions are too many at once.
            StoreUnavailable: those of all tenants are.
        """
        await self._take(tenant)
        try:
            yield
        finally:
            self._pass_on(tenant)

    async def _take(self, tenant: str) -> None:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = self.turns.enter(tenant, ticket)
        if entry == "go":
            return
        if entry == "full":
            raise self._too_many_at_once()
        over = asyncio.get_running_loop().call_later(self._wait_s_max, self._refuse, tenant, ticket)
        try:
            await ticket
        except BaseException:
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                # The turn came in the moment in which the caller went.
                self._pass_on(tenant)
            else:
                self.turns.give_up(tenant, ticket)
            raise
        finally:
            over.cancel()

    def _refuse(self, tenant: str, ticket: asyncio.Future[None]) -> None:
        """End the wait of a ticket; what it still waits for in this very moment tells why."""
        if ticket.done():
            return
        own = self.turns.at_its_limit(tenant)
        self.turns.give_up(tenant, ticket)
        ticket.set_exception(
            self._too_many_at_once() if own else StoreUnavailable("too many questions are being answered; try again shortly")
        )

    def _pass_on(self, tenant: str) -> None:
        while (following := self.turns.leave(tenant)) is not None:
            tenant, ticket = following
            if not ticket.done():
                ticket.set_result(None)
                return
            # Its task has just been cancelled: the turn goes further.

    def _too_many_at_once(self) -> QueryError:
        return QueryError(
            429,
            "Query_TooManyAtOnce",
            "Too many questions of this project at once: those before this one are still being answered",
            suggested_fix="Ask fewer at once, or send it again after the seconds in Retry-After.",
            retry_after_s=self._retry_after_s,
        )
