"""Versions of one mutable state that can be returned to: forks without copies, and undo when a command fails.

The state exists once, at the version that was used last. Every other version that is still referenced stores the
operations that lead from it to a neighbour; moving to it undoes or redoes them (Baker's rerooting of persistent
arrays). A fork is O(1), a change costs one record per held neighbour, and switching costs the operations between the
two versions.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Operation(Protocol):
    """A change of the state that can be applied and undone exactly."""

    def redo(self) -> None: ...
    def undo(self) -> None: ...


class Change:
    """An operation given by two functions."""

    __slots__ = ("_redo", "_undo")

    def __init__(self, redo: Callable[[], object], undo: Callable[[], object]) -> None:
        self._redo = redo
        self._undo = undo

    def redo(self) -> None:
        self._redo()

    def undo(self) -> None:
        self._undo()


class Version:
    """A point in the state's history. ``path`` leads from here to ``toward``; both are empty at the version the state
    is at."""

    __slots__ = ("__weakref__", "path", "toward")

    def __init__(self) -> None:
        self.toward: Version | None = None
        self.path: list[tuple[Operation, bool]] = []


class History:
    """Tracks the version that the state is at, and moves the state to another. The present itself is never held: it
    changes."""

    def __init__(self) -> None:
        self._present = Version()
        self._latest: weakref.ref[Version] | None = None
        self._failure: BaseException | None = None
        self.moving = False
        """True while operations are undone and redone."""
        self.before_leaving: Callable[[], object] = lambda: None
        """Called before the state goes to another version."""

    @property
    def recording(self) -> bool:
        """True while a version is held that is reached by undoing changes made from now on."""
        return self._latest is not None and self._latest() is not None

    def hold(self) -> Version:
        """The current version, reachable as long as the caller keeps a reference to it. O(1)."""
        latest = self._latest() if self._latest is not None else None
        if latest is not None and not latest.path:
            # Nothing was changed since the last hold.
            return latest
        return self._leave(self._present)

    def _leave(self, held: Version) -> Version:
        """Separate the present from ``held``, which was the current version."""
        latest = weakref.ref(held)
        self._present = held.toward = Version()
        self._latest = latest
        return held

    @contextmanager
    def undoing(self) -> Iterator[None]:
        """Undo what the body changed if it raises. RuntimeError if that cannot be undone: what the undoing met, such as
        a name that is taken, is no refusal, and nothing may be tried again on what is left."""
        start = self.hold()
        try:
            yield
        except BaseException:
            try:
                self.go(start)
            except Exception as error:
                raise RuntimeError("a change that failed half way could not be undone") from error
            raise

    def record(self, operation: Operation) -> None:
        """Record an operation that was just applied; it is undone if there is no memory for that. O(1)."""
        latest = self._latest() if self._latest is not None else None
        if latest is None:
            return
        try:
            latest.path.append((operation, True))
        except BaseException:
            operation.undo()
            raise

    def go(self, target: Version) -> None:
        """Move the state to ``target``, which stays reachable. O(operations between the two versions).

        The state is at no version after a move that failed half way, as for lack of memory: each further move raises
        what that one raised, or RuntimeError if it was interrupted."""
        if isinstance(self._failure, Exception):
            raise self._failure
        if self._failure is not None:
            raise RuntimeError("a move to another version was interrupted half way") from self._failure
        self.before_leaving()
        chain = [target]
        while chain[-1].toward is not None:
            chain.append(chain[-1].toward)
        if chain[-1] is not self._present:
            raise RuntimeError("a version of another state")
        # All that takes memory comes first.
        present, latest = Version(), weakref.ref(target)
        steps = [
            (here, nearer, [(operation, not forward) for operation, forward in reversed(here.path)])
            for here, nearer in zip(reversed(chain[:-1]), reversed(chain[1:]), strict=True)
        ]
        self.moving = True
        try:
            for here, nearer, backwards in steps:
                for operation, forward in backwards:
                    if forward:
                        operation.redo()
                    else:
                        operation.undo()
                nearer.toward, nearer.path = here, backwards
                here.toward, here.path = None, []
            self._present = target.toward = present
            self._latest = latest
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self.moving = False
