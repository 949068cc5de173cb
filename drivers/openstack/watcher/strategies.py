"""Strategies for Watcher: consolidation, balance and host maintenance by Hostler's move plans, in which no intermediate
state breaks a rule.

The actions of an audit may run at the same time, and Watcher orders them by itself. So an audit carries out the first
wave of a plan, whose moves may run side by side; the next audit finds what is left to do."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from watcher.common import exception
from watcher.decision_engine.strategy.strategies import base

from ....placement.decide.engine import Engine
from ....placement.plan.goals import Balance, Consolidate, Drain, Goal
from ....placement.types.errors import HostlerError
from ....placement.types.plans import Plan
from .model import fleet_of

CHANGE_SERVICE = "change_nova_service_state"


class PlannedStrategy(base.BaseStrategy):  # type: ignore[misc]  # Watcher has no types
    """What the strategies share: a plan on Watcher's compute model, and its moves as actions."""

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    DATASOURCE_METRICS: ClassVar[list[str]] = []

    def __init__(self, config: Any, osc: Any = None) -> None:
        super().__init__(config, osc)
        self.plan: Plan | None = None

    @classmethod
    def get_name(cls) -> str:
        """Its name in audit templates."""
        return cls.NAME

    @classmethod
    def get_display_name(cls) -> str:
        """Its name for people."""
        return cls.TITLE

    @classmethod
    def get_translatable_display_name(cls) -> str:
        """The same: it is not translated."""
        return cls.TITLE

    @classmethod
    def get_config_opts(cls) -> list[Any]:
        """It needs no datasource."""
        return []

    @abstractmethod
    def goal_of_plan(self) -> Goal:
        """What the plan is to reach."""

    def pre_execute(self) -> None:
        """Check that there is a model."""
        self._pre_execute()

    def do_execute(self, audit: Any = None) -> None:
        """Make the plan, and actions of its first wave. WatcherException where there is no plan."""
        fleet, asked, pinned = fleet_of(self.compute_model)
        try:
            self.plan = Engine(fleet).plan(self.goal_of_plan(), asked=asked, pinned=pinned)
        except HostlerError as error:
            raise exception.WatcherException(message=str(error)) from None
        for move in self.plan.waves[0].moves if self.plan.waves else ():
            instance = self.compute_model.get_instance_by_uuid(move.instance)
            nodes = [self.compute_model.get_node_by_name(name) for name in (move.source, move.target)]
            runs = str(getattr(instance.state, "value", instance.state)).lower() in ("active", "paused")
            self.add_action_migrate(instance, "live" if runs else "cold", *nodes)

    def post_execute(self) -> None:
        """Tell what the plan achieves."""
        self.solution.model = self.compute_model
        told = self.indicators()
        if told:
            self.solution.set_efficacy_indicators(**told)

    def indicators(self) -> dict[str, Any]:
        """What the goal's efficacy asks for."""
        return {}

    @property
    def moves(self) -> int:
        """Moves of this audit."""
        return len(self.plan.waves[0].moves) if self.plan is not None and self.plan.waves else 0


class Consolidation(PlannedStrategy, base.ServerConsolidationBaseStrategy):  # type: ignore[misc]  # as above
    """Empties as many hosts as it can."""

    NAME, TITLE = "hostler_consolidation", "Hostler: empty hosts"

    @classmethod
    def get_schema(cls) -> dict[str, Any]:
        """``most``: hosts that are emptied at most."""
        most = {"description": "Hosts that are emptied at most; 0: any number.", "type": "integer", "minimum": 0}
        return {"properties": {"most": most | {"default": 0}}}

    def goal_of_plan(self) -> Goal:
        """To empty hosts."""
        return Consolidate(most=getattr(self.input_parameters, "most", 0) or None)

    def indicators(self) -> dict[str, Any]:
        """Hosts in use, hosts that are emptied, and moves."""
        assert self.plan is not None
        nodes = self.compute_model.get_all_compute_nodes()
        emptied = {name for wave in self.plan.waves[:1] for name in wave.empty}
        return {
            "compute_nodes_count": len(nodes),
            "released_compute_nodes_count": len(emptied),
            "instance_migrations_count": self.moves,
        }


class Balancing(PlannedStrategy, base.WorkloadStabilizationBaseStrategy):  # type: ignore[misc]  # as above
    """Evens out how full hosts are, by one resource class."""

    NAME, TITLE = "hostler_balance", "Hostler: balance hosts"

    @classmethod
    def get_schema(cls) -> dict[str, Any]:
        """``resource``, ``threshold``, ``margin`` and ``most``, as of ``Balance``."""
        part = {"type": "number", "minimum": 0, "maximum": 1}
        classes = ["VCPU", "MEMORY_MB", "DISK_GB"]
        return {
            "properties": {
                "resource": {"description": "Resource class.", "enum": classes, "default": "MEMORY_MB"},
                "threshold": part | {"description": "Share above the mean that is left alone.", "default": 0.03},
                "margin": part | {"description": "Share of a host that a move must gain.", "default": 0.01},
                "most": part | {"description": "Share of the instances that may move.", "default": 0.03},
            }
        }

    def goal_of_plan(self) -> Goal:
        """To even out hosts."""
        given = self.input_parameters
        return Balance(
            resource=getattr(given, "resource", "MEMORY_MB"),
            threshold=getattr(given, "threshold", 0.03),
            margin=getattr(given, "margin", 0.01),
            most=getattr(given, "most", 0.03),
        )

    def indicators(self) -> dict[str, Any]:
        """Moves, and the standard deviation of the hosts' loads before and after them."""
        before, after = self._deviations()
        return {
            "instance_migrations_count": self.moves,
            "instances_count": len(self.compute_model.get_all_instances()),
            "standard_deviation_before_audit": before,
            "standard_deviation_after_audit": after,
        }

    def _deviations(self) -> tuple[float, float]:
        assert self.plan is not None
        names = {"VCPU": "vcpus", "MEMORY_MB": "memory", "DISK_GB": "disk"}
        field = names[getattr(self.input_parameters, "resource", "MEMORY_MB")]
        model, size, used = self.compute_model, dict[str, int](), dict[str, int]()
        for node in model.get_all_compute_nodes().values():
            size[node.hostname] = getattr(node, field)
            used[node.hostname] = sum(getattr(each, field) for each in model.get_node_instances(node))
        before = _deviation(size, used)
        for move in self.plan.waves[0].moves if self.plan.waves else ():
            amount = getattr(model.get_instance_by_uuid(move.instance), field)
            used[move.source] -= amount
            used[move.target] += amount
        return before, _deviation(size, used)


class Maintenance(PlannedStrategy, base.HostMaintenanceBaseStrategy):  # type: ignore[misc]  # as above
    """Closes a host and moves its guests away."""

    NAME, TITLE = "hostler_maintenance", "Hostler: drain a host"

    @classmethod
    def get_schema(cls) -> dict[str, Any]:
        """``maintenance_node``: the host."""
        node = {"description": "The host that is drained.", "type": "string"}
        return {"properties": {"maintenance_node": node}, "required": ["maintenance_node"]}

    def goal_of_plan(self) -> Goal:
        """To drain the host."""
        return Drain(hosts=(self.input_parameters.maintenance_node,))

    def do_execute(self, audit: Any = None) -> None:
        """Close the host, then move its guests."""
        super().do_execute(audit)
        name = self.input_parameters.maintenance_node
        node = self.compute_model.get_node_by_name(name)
        if str(getattr(node.status, "value", node.status)).lower() == "enabled":
            parameters = {
                "state": "disabled",
                "disabled_reason": self.REASON_FOR_MAINTAINING,
                "resource_name": name,
            }
            self.solution.add_action(action_type=CHANGE_SERVICE, resource_id=node.uuid, input_parameters=parameters)


def _deviation(size: dict[str, int], used: dict[str, int]) -> float:
    """Standard deviation of the parts of hosts that are used."""
    loads = [used[name] / size[name] for name in size if size[name]]
    mean = sum(loads) / len(loads) if loads else 0.0
    return (sum((load - mean) ** 2 for load in loads) / len(loads)) ** 0.5 if loads else 0.0
