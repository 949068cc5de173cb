"""An engine and the oracle side by side: every command goes to both, and both must say and become the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.types.decision import Decision, Selection
from hostler.placement.types.errors import HostlerError, MetricNotFound
from hostler.placement.types.request import Request, RequestSpec, ServerGroup

from . import commands as c
from . import values
from .dump import VIEW, consumers, dump, host_state, live_rows
from .oracle import Answer, Oracle
from .world import FIGURES, World


class Run:
    """One engine with its oracle, and how far both have come."""

    def __init__(self, setup: values.Fleet, policies: Sequence[Policy], specs: Sequence[RequestSpec]) -> None:
        self.setup, self.policies, self.specs = setup, policies, specs
        self.guests = 0
        self.hosts = 20
        fleet = Fleet()
        fleet._aggregate_ids(setup.aggregates)
        add_hosts(fleet, setup.hosts)
        self.engine = Engine(fleet, policies[0], seed=7)
        world = World(setup.aggregates)
        for host in setup.hosts:
            world.add_host(host)
        self.oracle = Oracle(world, policies[0], self.row)
        self.groups: list[str] = []

    def row(self, name: str) -> int:
        """A host's place in the order in which the engine looks at hosts."""
        return self.engine.fleet.row(name)

    @property
    def world(self) -> World:
        return self.oracle.world

    def fork(self, policy: Policy | None) -> Run:
        """Both as they are now, to go another way."""
        other = copy.copy(self)
        other.engine = self.engine.fork(policy)
        other.oracle = Oracle(copy.deepcopy(self.world), other.engine.policy, other.row)
        other.groups = list(self.groups)
        return other

    # what numbers mean

    def host(self, number: int) -> str | None:
        names = sorted(self.world.nodes)
        return names[number % len(names)] if names else None

    def guest(self, number: int) -> str | None:
        known = sorted(self.world.guests)
        return known[number % len(known)] if known else None

    def new_guests(self, count: int) -> tuple[str, ...]:
        self.guests += count
        return tuple(values.guest_uuid(number) for number in range(self.guests - count, self.guests))

    def request(self, ask: c.Ask, uuids: tuple[str, ...] | None = None) -> Request:
        uuids = uuids if uuids is not None else self.new_guests(ask.instances)
        return Request(
            spec=self.specs[ask.spec % len(self.specs)],
            instance_uuids=uuids,
            project_id=ask.project,
            user_id="u",
            server_group=self._group(ask, uuids),
            now=ask.now,
            alternates=ask.alternates,
        )

    def _group(self, ask: c.Ask, uuids: tuple[str, ...]) -> ServerGroup | str | None:
        if ask.supplied is None:
            return self.groups[ask.group % len(self.groups)] if ask.group is not None and self.groups else None
        members = {values.guest_uuid(number) for number in ask.supplied.members}
        return ServerGroup(
            uuid=values.guest_uuid(5000),
            policy=ask.supplied.policy,
            max_server_per_host=ask.supplied.at_most,
            members=frozenset(members | set(uuids if ask.joins else ())),
            hosts=frozenset(ask.supplied.hosts),
        )

    # doing and comparing

    def do(self, command: c.Command) -> None:
        """Give a command to both, and compare what they answer and become."""
        getattr(self, f"_{type(command).__name__.lower()}")(command)
        self.check()

    def both(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any] | None:
        """Both answers; None if both fail alike, and then nothing has changed."""
        before = dump(self.engine)
        world = copy.deepcopy(self.world)
        wanted, got = outcome(theirs), outcome(ours)
        if isinstance(wanted, HostlerError) or isinstance(got, HostlerError):
            assert type(wanted) is type(got), (wanted, got)
            assert dump(self.engine) == before
            self.oracle.world = world
            return None
        return got, wanted

    def _place(self, command: c.Place) -> None:
        request, seed = self.request(command.ask), self.engine._context.decision_seed()
        before = dump(self.engine)
        answers = self.both(lambda: self.engine.place(request), lambda: self.oracle.place(request, seed))
        if answers is not None:
            compare(self.engine, *answers, seed)
            if not answers[0].placed:
                self._unchanged(before, 1)

    def _placemany(self, command: c.PlaceMany) -> None:
        requests = [self.request(ask) for ask in command.asks]
        seeds = [self.engine._context.seed_of(self.engine.sequence + 1 + i) for i in range(len(requests))]
        answers = self.both(lambda: self.engine.place_many(requests), lambda: self.oracle.place_many(requests, seeds))
        if answers is None:
            return
        decisions, wanted = answers
        failed = {at: type(answer) for at, answer in enumerate(wanted) if isinstance(answer, MetricNotFound)}
        assert {at: type(error) for at, error in decisions.errors.items()} == failed
        assert len(decisions) == len(requests)
        assert decisions.placed == sum(at not in failed and bool(each.chosen) for at, each in enumerate(wanted))
        decided = (at for at in range(len(requests)) if at not in failed)
        for at, seed in zip(decided, seeds, strict=False):
            compare(self.engine, decisions[at], wanted[at], seed)

    def _rank(self, command: c.Rank) -> None:
        request = self.request(command.ask)
        answers = self.both(lambda: self.engine.rank(request), lambda: self.oracle.rank(request))
        if answers is not None:
            ranked, weighed = answers
            names = [self.engine.fleet.name(row) for row in ranked.rows]
            assert names == [node.nodename for node, _ in weighed]
            assert [w.hex() for w in ranked.weights.tolist()] == [float(weight).hex() for _, weight in weighed]
            assert list(ranked.removed.items()) == list(self.oracle.removed.items())

    def _replace(self, command: c.Replace) -> None:
        uuid = self.guest(command.guest)
        if uuid is None:
            return
        request, seed = self.request(command.ask, (uuid,)), self.engine._context.decision_seed()
        place = self.engine.move if command.leave else self.engine.resize
        before = dump(self.engine)
        answers = self.both(
            lambda: place(uuid, request), lambda: self.oracle.replace(uuid, request, seed, leave=command.leave)
        )
        if answers is not None:
            compare(self.engine, *answers, seed)
            if not answers[0].placed:
                self._unchanged(before, 1)

    def _unchanged(self, before: dict[str, Any], decisions: int) -> None:
        """Nothing but the number of decisions and the time."""
        after = dump(self.engine)
        before["sequence"] += decisions
        before["now"] = after["now"]
        for provider in (*before["providers"].values(), *after["providers"].values()):
            provider.pop("service_up")
        assert after == before

    def _release(self, command: c.Release) -> None:
        uuids = {self.guest(number) for number in command.guests} - {None}
        if uuids:
            self.engine.release(sorted(uuid for uuid in uuids if uuid))
            for uuid in uuids:
                self.world.release(str(uuid))

    def _spawned(self, command: c.Spawned) -> None:
        uuid = self.guest(command.guest)
        if uuid is not None:
            self.engine.spawned(uuid)
            self.world.spawned(uuid)

    def _report(self, command: c.Report) -> None:
        self._edit(command.host, lambda name: self.world.report(name, command.figures), "report", **command.figures)

    def _heartbeat(self, command: c.Heartbeat) -> None:
        self._edit(command.host, lambda name: self.world.heartbeat(name, command.at), "heartbeat", at=command.at)

    def _setservice(self, command: c.SetService) -> None:
        flags = {"disabled": command.disabled, "forced_down": command.forced_down}
        self._edit(command.host, lambda name: self.world.set_service(name, **flags), "set_service", **flags)

    def _setaggregates(self, command: c.SetAggregates) -> None:
        known = [self.world.aggregates[self.setup.aggregates[number].uuid] for number in command.aggregates]

        def put(name: str) -> None:
            self.world.nodes[name].aggregate_uuids = [aggregate.uuid for aggregate in known]

        self._edit(command.host, put, "set_aggregates", aggregates=known)

    def _settraits(self, command: c.SetTraits) -> None:
        def put(name: str) -> None:
            self.world.nodes[name].traits = command.traits

        self._edit(command.host, put, "set_traits", traits=command.traits)

    def _setinventory(self, command: c.SetInventory) -> None:
        given = command.inventories
        self._edit(command.host, lambda name: self.world.set_inventory(name, given), "set_inventory", inventories=given)

    def _edit(self, number: int, theirs: Callable[[str], None], method: str, **arguments: Any) -> None:
        """One change of one host."""
        name = self.host(number)
        if name is not None:
            self.both(lambda: getattr(self.engine.fleet, method)(name, **arguments), lambda: theirs(name))

    def _updateaggregate(self, command: c.UpdateAggregate) -> None:
        number = command.number % len(self.setup.aggregates)
        aggregate = values.aggregate(number, command.metadata)
        self.engine.fleet.update_aggregate(aggregate)
        self.world.aggregates[aggregate.uuid] = aggregate

    def _addhost(self, command: c.AddHost) -> None:
        setup, known = self.setup, tuple(self.world.aggregates.values())
        template = setup.templates[command.template % len(setup.templates)]
        host = values.host(self.hosts, template, known, shared=setup.shared, reported=command.reported)
        self.hosts += 1
        self.both(lambda: add_hosts(self.engine.fleet, [host]), lambda: self.world.add_host(host))

    def _removehost(self, command: c.RemoveHost) -> None:
        self._edit(command.host, self.world.remove_host, "remove_provider")

    def _addgroup(self, command: c.AddGroup) -> None:
        uuid = values.guest_uuid(6000 + len(self.groups))
        self.groups.append(uuid)
        self.engine.fleet.add_server_group(uuid, command.policy, max_server_per_host=command.at_most)
        self.world.groups[uuid] = (command.policy, command.at_most)

    # states

    def check(self) -> None:
        """Hosts, inventories and guests of both are the same."""
        fleet = self.engine.fleet
        rows = {fleet.name(row): row for row in live_rows(fleet)}
        assert rows.keys() == self.world.nodes.keys()
        for name, node in self.world.nodes.items():
            assert host_state(fleet, rows[name]) == {field: getattr(node, field) for field in VIEW}, name
            stocks = {resource: (stock.inventory, stock.used) for resource, stock in node.stocks.items()}
            assert fleet.inventory(name) == stocks, name
        assert {uuid.replace("-", "") for uuid in self.world.guests} == set(consumers(fleet))
        for guest in self.world.guests.values():
            held = fleet.consumer(guest.uuid)
            assert (held.provider, held.resources) == (guest.node.nodename, guest.resources)
            assert (held.server_group, held.building) == (guest.group, guest.building)
            assert (held.project_id, held.user_id) == (guest.project_id, guest.user_id)
        assert fleet.now == self.world.now
        fleet.check()


def outcome(call: Callable[[], Any]) -> Any:
    """What a call answers, or the error of ours that it raises."""
    try:
        return call()
    except HostlerError as error:
        return error


def compare(engine: Engine, decision: Decision, answer: Answer, seed: int) -> None:
    """A decision says what the oracle says, weights to the bit."""
    assert decision.placed == bool(answer.chosen), (decision, answer)
    assert decision.considered == answer.considered
    assert list(decision.removed.items()) == list(answer.removed.items())
    assert decision.seed == seed
    assert (decision.refusal is None) == decision.placed
    assert len(decision.selections) == len(answer.chosen)
    for selection, chosen in zip(decision.selections, answer.chosen, strict=True):
        alternates = tuple((each.node, each.weight) for each in selection.alternates)
        assert (selection.instance_uuid, selection.node) == (chosen.uuid, chosen.node)
        assert selection.weight.hex() == float(chosen.weight).hex()
        assert alternates == chosen.alternates
        check_parts(selection)
        check_allocations(engine, selection)


def check_parts(selection: Selection) -> None:
    """The parts, where they are told, add up to the weight."""
    total = 0.0
    for part in selection.parts:
        total += part.points
    assert not selection.parts or total.hex() == selection.weight.hex()


def check_allocations(engine: Engine, selection: Selection) -> None:
    """What the decision says is what the consumer holds."""
    consumer = engine.fleet.consumer(selection.instance_uuid)
    assert consumer.provider == selection.node
    assert selection.allocations == {selection.provider_uuid: consumer.resources}


__all__ = ["FIGURES", "Run"]
