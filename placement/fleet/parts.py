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
        self._change_log = change_log = ChangeLog(whole_number(capacity, "capacity"))
        self._store, self._kernel, self._history, self._classes = (
            change_log.store,
            change_log.kernel,
            change_log.history,
            change_log.classes,
        )
        self._trees = Trees(change_log)
        self._nodes = ServiceHosts(change_log.store)
        self._providers = Providers(change_log, self._nodes, self._trees, self.seed)
        self._inventories = Inventories(change_log, self._providers.numa)
        self.resource_classes, self._unit_rules = self._inventories.classes, self._inventories.unit_rules
        self._services = Services(change_log)
        self._aggregate_table = Aggregates(change_log)
        self.aggregates = self._aggregate_table.values
        self._pci_states = PciStates(change_log)
        self._consumers = Consumers(change_log, self._providers, self._pci_states)
        self._projects, self._users = self._consumers.projects, self._consumers.users
        self._extras, self._image_properties = self._consumers.extras, self._consumers.image_properties
        self._server_groups = ServerGroups(change_log)
        self._groups, self._group_uuids = self._server_groups.ids, self._server_groups.uuids
        self._stats: Interned[tuple[tuple[str, str], ...]] = Interned()
        self._stats.id(())
        self._metrics: Interned[tuple[tuple[str, float], ...]] = Interned()
        self._metrics.id(())
        self._host_ips = NameTable()
        self._host_ips.intern("")
        self._registry = Registry()
        self._cells: tuple[tuple[int, int], frozenset[str | None]] = ((0, 0), frozenset())
        self.pools = Pools(change_log.history)
        """Storage pools and volumes."""
        self._heads = Heads(change_log, self._services)

    # size, time and versions

    def __len__(self) -> int:
        """Number of providers. O(1)."""
        return len(self._names)

    @property
    def rows(self) -> int:
        """Row ids are below this. O(1)."""
        return self._store.rows

    @property
    def version(self) -> int:
        """Number of row changes so far: the change log's position. O(1)."""
        return self._kernel.version

    @property
    def _static_epoch(self) -> int:
        """Increases when something that compiled signatures treat as constant has changed."""
        return self._change_log.static_epoch

    @property
    def _topology_epoch(self) -> int:
        """Increases when provider trees, or the providers in them, may have changed."""
        return self._change_log.topology_epoch

    @property
    def now(self) -> float | None:
        """The time for which heartbeats are evaluated, in seconds since the epoch. None until a time was given:
        heartbeats are not evaluated then."""
        return self._services.now

    @property
    def service_down_time(self) -> float:
        """Seconds without a heartbeat after which a service counts as down."""
        return self._services.down_time

    def nbytes(self) -> int:
        """Approximate bytes of columns, names and uuids, without consumers and the ranking indices of engines.
        O(rows)."""
        names = sum(array.nbytes for table in (self._names, self._nodes.names) for array in table.to_arrays().values())
        return self._store.nbytes + self._numa.nbytes + names + 24 * 2 * max(len(self), 1)

    # facts about all hosts

    @property
    def _has_pci(self) -> bool:
        """True if some host has PCI devices, free or taken. O(1)."""
        return self._change_log.constants.has_pci

    @property
    def minimum_compute_version(self) -> int | None:
        """The least service version of all nova-computes (Nova: get_minimum_version_all_cells); None if one is not
        known, or there are no hosts. O(versions)."""
        return self._change_log.constants.minimum_compute_version

    @property
    def _nested_classes(self) -> frozenset[int]:
        """Resource classes in inventories of providers that are not hosts. O(classes)."""
        return self._change_log.constants.nested_classes

    @property
    def is_host(self) -> NDArray[np.bool_]:
        """True for the rows that are compute hosts, bool[rows]. O(rows)."""
        by_row: NDArray[np.bool_] = self._change_log.is_host()[self._store.row["class_of"][: self.rows]]
        return by_row

    def hosts_among(self, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of some rows are compute hosts, bool[rows]. O(rows)."""
        found: NDArray[np.bool_] = self._change_log.is_host()[self._store.row["class_of"][rows]]
        return found

    def cells(self) -> frozenset[str | None]:
        """Cells of all hosts. O(classes) after new host classes were added, else O(1)."""
        known = (len(self._classes), self._change_log.forgotten_classes)
        if self._cells[0] != known:
            cells = frozenset(value.cell_uuid for value in self._classes.values if value.is_host)
            self._cells = (known, cells)
        return self._cells[1]

    def column(self, name: str) -> NDArray[np.float64]:
        """Live view of a host column over all rows, float64[rows]; UnknownName for a name that is not
        in HOST_COLUMNS. O(1)."""
        index = COLUMN.get(name) if isinstance(name, str) else None
        if index is None:
            raise UnknownName.among("host column", str(name), COLUMN, field="column")
        return self._store.host[index, : self.rows]

    @property
    def _numa(self) -> NumaTable:
        """NUMA cells of hosts, by row. O(1)."""
        return self._providers.numa

    # names

    def row(self, name: str, *, field: str = "provider") -> int:
        """Row of the provider named ``name`` (for hosts: the node name); UnknownName otherwise. O(1)."""
        return self._providers.row(name, field)

    def row_of_uuid(self, uuid: str, *, field: str = "provider") -> int:
        """Row of the provider with this uuid; UnknownName otherwise. O(1)."""
        return self._providers.row_of_uuid(uuid, field)

    def _rows_of_service_host(self, host: str) -> list[int]:
        """Rows of the nodes of a service host, in row order; empty if there is none. O(nodes)."""
        return self._nodes.rows(host)

    @property
    def _shared_service_hosts(self) -> dict[int, list[int]]:
        """Rows by service host, for service hosts with several nodes. O(1)."""
        return self._nodes.shared

    @property
    def _names(self) -> NameTable:
        """Names of providers, by row. O(1)."""
        return self._providers.names

    def name(self, row: int) -> str:
        """Name of a row. O(1)."""
        return self._providers.names.get(row)

    def _service_host(self, row: int) -> str:
        """Service host of a row that is a host. O(1)."""
        return self._nodes.name(row)

    def _service_hosts(self, rows: NDArray[np.int32]) -> list[str]:
        """Service host of each of some rows that are hosts. O(rows)."""
        return self._nodes.names_of(rows)

    def uuid(self, row: int) -> str:
        """Uuid of a row. O(1)."""
        return self._providers.uuid(row)

    def _host_class(self, row: int) -> HostClass:
        """The static fields of a row. O(1)."""
        return self._change_log.host_class(row)

    def resource_class(self, name: str, *, create: bool = False) -> int:
        """Index of a resource class. A valid name that is not in use is created, or UnknownName without ``create``.
        O(1)."""
        return self._inventories.resource_class(name, create=create)
