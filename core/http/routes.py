"""All routes of the API."""

from typing import Final

from . import (
    aggregates,
    allocations,
    candidates,
    inventories,
    providers,
    reshaper,
    resource_classes,
    root,
    traits,
    usages,
)
from .routing import Route

ROUTES: Final[tuple[Route, ...]] = (
    *root.ROUTES,
    *resource_classes.ROUTES,
    *providers.ROUTES,
    *inventories.ROUTES,
    *usages.ROUTES,
    *aggregates.ROUTES,
    *allocations.ROUTES,
    *candidates.ROUTES,
    *traits.ROUTES,
    *reshaper.ROUTES,
)
