"""The parts of a fleet and what can be read from them directly: sizes, time, names and columns. It changes nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...ext.tables import NameTable
from ..storage.pools.pools import Pools
from ..types.errors import UnknownName
from ..types.host_classes import HostClass, Interned
from ..types.validation import whole_number
from .aggregates import Aggregates
from .change_log import ChangeLog
from .columns import COLUMN
from .consumers import Consumers
from .custom_names import Registry
from .heads import Heads
from .interned_pci import PciStates
from .inventories import Inventories
from .nodes_by_host import ServiceHosts
from .numa_table import NumaTable
from .provider_trees import Trees
from .providers import Providers
from .server_groups import ServerGroups
from .service_liveness import Services


class FleetParts:
    """The parts that a ``Fleet`` is made of, one object for each subject, on one change log."""

    def __init__(self, *, seed: int = 0, capacity: int = 64) -> None:
        self.seed = whole_number(seed, "seed", most=2**63 - 1)
        self.change_log = change_log = ChangeLog(whole_number(capacity, "capacity"))
        self.store, self.kernel, self.history, self.classes = (
            change_log.store,
            change_log.kernel,
            change_log.history,
            change_log.classes,
        )
        self._trees = Trees(change_log)
        self.nodes = ServiceHosts(change_log.store)
        self.providers = Providers(change_log, self.nodes, self._trees, self.seed)
        self.inventories = Inventories(change_log, self.providers.numa)
        self.resource_classes, self.unit_rules = self.inventories.classes, self.inventories.unit_rules
        self.services = Services(change_log)
        self._aggregate_table = Aggregates(change_log)
        self.aggregates = self._aggregate_table.values
        self.pci_states = PciStates(change_log)
        self.consumers = Consumers(change_log, self.providers, self.pci_states)
        self.projects, self.users = self.consumers.projects, self.consumers.users
        self.extras, self.image_properties = self.consumers.extras, self.consumers.image_properties
        self.server_groups = ServerGroups(change_log)
        self.groups, self.group_uuids = self.server_groups.ids, self.server_groups.uuids
        self.stats: Interned[tuple[tuple[str, str], ...]] = Interned()
        self.stats.id(())
        self.metrics: Interned[tuple[tuple[str, float], ...]] = Interned()
        self.metrics.id(())
        self.host_ips = NameTable()
        self.host_ips.intern("")
        self._registry = Registry()
        self._cells: tuple[tuple[int, int], frozenset[str | None]] = ((0, 0), frozenset())
        self.pools = Pools(change_log.history)
        """Storage pools and volumes."""
        self._heads = Heads(change_log, self.services)

    # size, time and versions

    def __len__(self) -> int:
        """Number of providers. O(1)."""
        return len(self.names)

    @property
    def rows(self) -> int:
        """Row ids are below this. O(1)."""
        return self.store.rows

    @property
    def version(self) -> int:
        """Number of row changes so far: the change log's position. O(1)."""
        return self.kernel.version

    @property
    def static_epoch(self) -> int:
        """Increases when something that compiled signatures treat as constant has changed."""
        return self.change_log.static_epoch

    @property
    def topology_epoch(self) -> int:
        """Increases when provider trees, or the providers in them, may have changed."""
        return self.change_log.topology_epoch

    @property
    def now(self) -> float | None:
        """The time for which heartbeats are evaluated, in seconds since the epoch. None until a time was given:
        heartbeats are not evaluated then."""
        return self.services.now

    @property
    def service_down_time(self) -> float:
        """Seconds without a heartbeat after which a service counts as down."""
        return self.services.down_time

    def nbytes(self) -> int:
        """Approximate bytes of columns, names and uuids, without consumers and the ranking indices of engines.
        O(rows)."""
        names = sum(array.nbytes for table in (self.names, self.nodes.names) for array in table.to_arrays().values())
        return self.store.nbytes + self.numa.nbytes + names + 24 * 2 * max(len(self), 1)

    # facts about all hosts

    @property
    def has_pci(self) -> bool:
        """True if some host has PCI devices, free or taken. O(1)."""
        return self.change_log.constants.has_pci

    @property
    def minimum_compute_version(self) -> int | None:
        """The least service version of all nova-computes (Nova: get_minimum_version_all_cells); None if one is not
        known, or there are no hosts. O(versions)."""
        return self.change_log.constants.minimum_compute_version

    @property
    def nested_classes(self) -> frozenset[int]:
        """Resource classes in inventories of providers that are not hosts. O(classes)."""
        return self.change_log.constants.nested_classes

    @property
    def is_host(self) -> NDArray[np.bool_]:
        """True for the rows that are compute hosts, bool[rows]. O(rows)."""
        by_row: NDArray[np.bool_] = self.change_log.is_host()[self.store.row["class_of"][: self.rows]]
        return by_row

    def cells(self) -> frozenset[str | None]:
        """Cells of all hosts. O(classes) after new host classes were added, else O(1)."""
        known = (len(self.classes), self.change_log.forgotten_classes)
        if self._cells[0] != known:
            cells = frozenset(value.cell_uuid for value in self.classes.values if value.is_host)
            self._cells = (known, cells)
        return self._cells[1]

    def column(self, name: str) -> NDArray[np.float64]:
        """Live view of a host column over all rows, float64[rows]; UnknownName for a name that is not
        in HOST_COLUMNS. O(1)."""
        index = COLUMN.get(name) if isinstance(name, str) else None
        if index is None:
            raise UnknownName.among("host column", str(name), COLUMN, field="column")
        return self.store.host[index, : self.rows]

    @property
    def numa(self) -> NumaTable:
        """NUMA cells of hosts, by row. O(1)."""
        return self.providers.numa

    # names

    def row(self, name: str, *, field: str = "provider") -> int:
        """Row of the provider named ``name`` (for hosts: the node name); UnknownName otherwise. O(1)."""
        return self.providers.row(name, field)

    def row_of_uuid(self, uuid: str, *, field: str = "provider") -> int:
        """Row of the provider with this uuid; UnknownName otherwise. O(1)."""
        return self.providers.row_of_uuid(uuid, field)

    def rows_of_service_host(self, host: str) -> list[int]:
        """Rows of the nodes of a service host, in row order; empty if there is none. O(nodes)."""
        return self.nodes.rows(host)

    @property
    def shared_service_hosts(self) -> dict[int, list[int]]:
        """Rows by service host, for service hosts with several nodes. O(1)."""
        return self.nodes.shared

    @property
    def names(self) -> NameTable:
        """Names of providers, by row. O(1)."""
        return self.providers.names

    def name(self, row: int) -> str:
        """Name of a row. O(1)."""
        return self.providers.names.get(row)

    def service_host(self, row: int) -> str:
        """Service host of a row that is a host. O(1)."""
        return self.nodes.name(row)

    def uuid(self, row: int) -> str:
        """Uuid of a row. O(1)."""
        return self.providers.uuid(row)

    def host_class(self, row: int) -> HostClass:
        """The static fields of a row. O(1)."""
        return self.change_log.host_class(row)

    def resource_class(self, name: str, *, create: bool = False) -> int:
        """Index of a resource class. A valid name that is not in use is created, or UnknownName without ``create``.
        O(1)."""
        return self.inventories.resource_class(name, create=create)
