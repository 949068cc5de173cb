"""A slow simulator of first fit on equal hosts, which shares nothing with the simulator that it checks: a loop over
steps and plain lists."""

from __future__ import annotations

from dataclasses import dataclass, field

STEP = 300


@dataclass
class Guest:
    """A guest: when it arrives, how long it stays (None: for ever), and what it takes."""

    arrives: int
    stays: int | None
    vcpus: int
    gib: int


@dataclass
class Result:
    """What became of the guests."""

    placed: int = 0
    refused: int = 0
    waiting: int = 0
    waits: list[int] = field(default_factory=list)
    guest_seconds: int = 0
    ended: int = 0


def simulate(guests: list[Guest], hosts: int, vcpus: int, gib: int, wait: int, until: int | None = None) -> Result:
    """Play the guests until all that is going to happen has happened, or the time ``until``."""
    result, here, queue = Result(), [], []  # type: ignore[var-annotated]  # of (host, guest, end) and of guests
    coming = sorted(guests, key=lambda guest: guest.arrives // STEP)  # in a step, in the order given
    now = 0
    ends = [0 if guest.stays is None else -(-(guest.arrives + guest.stays) // STEP) * STEP for guest in guests]
    last = max(max(ends), max(guest.arrives for guest in guests) // STEP * STEP + STEP)
    while until is None or now < until:
        here = [entry for entry in here if entry[2] is None or entry[2] > now]
        if now >= last and not queue and not any(end is not None for _, _, end in here):
            break
        while coming and coming[0].arrives <= now + STEP - 1:
            queue.append(coming.pop(0))
        left = []
        for guest in queue:
            arrived = guest.arrives // STEP * STEP
            for host in range(hosts):
                used = [(each.vcpus, each.gib) for number, each, _ in here if number == host]
                if sum(v for v, _ in used) + guest.vcpus <= vcpus and sum(g for _, g in used) + guest.gib <= gib:
                    stays = (
                        None
                        if guest.stays is None
                        else max(STEP, -(-(guest.arrives + guest.stays) // STEP) * STEP - arrived)
                    )
                    here.append((host, guest, None if stays is None else now + stays))
                    result.placed += 1
                    if now > arrived:
                        result.waits.append(now - arrived)
                    break
            else:
                if now + STEP - arrived <= wait:
                    left.append(guest)
                else:
                    result.refused += 1
        queue = left
        now += STEP
        result.guest_seconds += STEP * len(here)
    result.waiting, result.ended = len(queue), now
    return result
