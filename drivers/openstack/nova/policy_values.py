"""The options of a running nova-scheduler as the values of a policy. Works on any oslo.config object."""

from __future__ import annotations

from typing import Any

from ....placement.policy.policy import NOVA_CONF
from ....placement.types.options import ALL_WEIGHERS
from ....placement.weighers import BUILTIN_WEIGHERS


def policy_values(conf: Any, weighers: tuple[str, ...], release: str) -> dict[str, dict[str, Any]]:
    """Group -> option -> value of what a decision depends on, as ``conf`` has it now. ``weighers``: the classes that
    Nova found, in the order in which it adds their weights. ``release``: Nova's major release. O(options)."""
    values: dict[str, dict[str, Any]] = {}
    for group, kind in NOVA_CONF.items():
        section = conf if group == "DEFAULT" else getattr(conf, group)
        values[group] = {name: getattr(section, name) for name in kind.option_names() if name in section}
    own: dict[str, Any] = {"prepare": False, "nova_bugs": True, "nova_release": release}
    if list(values["filter_scheduler"].get("weight_classes", ())) == [ALL_WEIGHERS]:
        known = set(BUILTIN_WEIGHERS)
        if set(weighers) <= known:
            values["filter_scheduler"]["weight_classes"] = list(weighers)
            own["weigher_order"] = list(weighers)
    values["hostler"] = own
    return values
