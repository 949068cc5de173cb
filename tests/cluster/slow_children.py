"""Children that make digests in a world of one process: at once, and then told late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

InChild = Callable[..., Awaitable[bytes]]


def told_after(seconds: Callable[[], float]) -> InChild:
    """In place of ``hostler.core.forks.in_child``: the work is done on the state as it is, and its result is there so
    many seconds later."""

    async def in_child(
        work: Callable[[], bytes], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> bytes:
        made = work()
        task_status.started()
        await trio.sleep(seconds())
        return made

    return in_child
