"""Access rules of the Placement API, evaluated by oslo.policy, and the operator's policy file that overrides them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from oslo_config import cfg
from oslo_policy import policy

from ...placement.types.errors import InvalidValue
from .config import PolicyOptions
from .identity import Identity

ADMIN_OR_SERVICE: Final = "rule:admin_or_service_api"
SERVICE: Final = "rule:service_api"
READER: Final = "rule:admin_or_project_reader_or_service_api"

RULES: Final = {
    "placement:resource_providers:list": ADMIN_OR_SERVICE,
    "placement:resource_providers:create": ADMIN_OR_SERVICE,
    "placement:resource_providers:show": ADMIN_OR_SERVICE,
    "placement:resource_providers:update": ADMIN_OR_SERVICE,
    "placement:resource_providers:delete": ADMIN_OR_SERVICE,
    "placement:resource_classes:list": ADMIN_OR_SERVICE,
    "placement:resource_classes:create": ADMIN_OR_SERVICE,
    "placement:resource_classes:show": ADMIN_OR_SERVICE,
    "placement:resource_classes:update": ADMIN_OR_SERVICE,
    "placement:resource_classes:delete": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:list": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:create": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:show": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:update": ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:delete": ADMIN_OR_SERVICE,
    "placement:resource_providers:aggregates:list": ADMIN_OR_SERVICE,
    "placement:resource_providers:aggregates:update": ADMIN_OR_SERVICE,
    "placement:resource_providers:usages": ADMIN_OR_SERVICE,
    "placement:usages": READER,
    "placement:traits:list": ADMIN_OR_SERVICE,
    "placement:traits:show": ADMIN_OR_SERVICE,
    "placement:traits:update": ADMIN_OR_SERVICE,
    "placement:traits:delete": ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:list": ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:update": ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:delete": ADMIN_OR_SERVICE,
    "placement:allocations:manage": ADMIN_OR_SERVICE,
    "placement:allocations:list": ADMIN_OR_SERVICE,
    "placement:allocations:update": ADMIN_OR_SERVICE,
    "placement:allocations:delete": ADMIN_OR_SERVICE,
    "placement:resource_providers:allocations:list": ADMIN_OR_SERVICE,
    "placement:allocation_candidates:list": ADMIN_OR_SERVICE,
    "placement:reshaper:reshape": SERVICE,
}
"""Operation -> its default access rule."""

_BASE: Final = {
    "service_api": "role:service",
    "admin_or_service_api": "role:admin or role:service",
    "project_reader_api": "role:reader and project_id:%(project_id)s",
    "admin_or_project_reader_or_service_api": "role:admin or rule:project_reader_api or role:service",
}
_REMOTE: Final = re.compile(r"\bhttps?:")


class Policy:
    """The effective rules. They are read once; results are cached, since they depend only on the arguments."""

    def __init__(self, options: PolicyOptions) -> None:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        self._enforcer = policy.Enforcer(conf, policy_file=_checked(options.file) or os.devnull, use_conf=True)
        # What decides who may do what is set here: the library's defaults differ by version, and it would look for
        # files of its own in the home folder and in /etc.
        conf.set_override("enforce_new_defaults", options.enforce_new_defaults, group="oslo_policy")
        with suppress(cfg.NoSuchOptError):  # newer versions have no such option, and always do
            conf.set_override("enforce_scope", True, group="oslo_policy")
        conf.set_override("policy_dirs", [], group="oslo_policy")
        conf.set_override("policy_file", options.file or os.devnull, group="oslo_policy")
        self._enforcer.suppress_deprecation_warnings = True
        self._enforcer.suppress_default_change_warnings = True
        self._enforcer.register_defaults(_defaults())
        try:
            self._enforcer.load_rules()
            self._enforcer.check_rules(raise_on_violation=True)
        except (cfg.Error, policy.InvalidDefinitionError, AttributeError, TypeError, ValueError) as error:
            raise InvalidValue(f"{options.file or 'the policy rules'}: {error}", field="policy.file") from error
        self.allows = lru_cache(maxsize=4_096)(self._judge)

    def _judge(self, rule: str, identity: Identity, project: str | None) -> bool:
        """Whether ``rule`` allows ``identity`` to act on resources of ``project``. O(rules)."""
        credentials = {
            "user_id": identity.user,
            "project_id": identity.project,
            "domain_id": identity.domain,
            "roles": sorted(identity.roles),
            "system_scope": "all" if identity.system else None,
            "is_admin_project": True,
        }
        if identity.system:
            credentials["system"] = "all"
        target = {"project_id": project, "user_id": identity.user}
        return bool(self._enforcer.authorize(rule, target, credentials, do_raise=False))


def _checked(file: str) -> str | None:
    """The path of a readable policy file without checks that ask other servers: the answer must not wait for them."""
    if not file:
        return None
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{file}: {error}", field="policy.file") from error
    if _REMOTE.search(text):
        raise InvalidValue(f"{file}: rules that ask another server (http:, https:) are not supported", field="policy")
    return file


def _defaults() -> list[policy.RuleDefault]:
    """The built-in rules. The deprecated rule of each, role admin, is accepted as well unless enforce_new_defaults is
    set."""
    older = policy.DeprecatedRule(
        name="rule:admin_api",
        check_str="role:admin",
        deprecated_reason="Replaced by the roles of secure RBAC.",
        deprecated_since="5.0.0",
    )
    admin = policy.RuleDefault("admin_api", "role:admin", scope_types=["project"])
    base = [
        policy.RuleDefault(name, check, scope_types=["project"], deprecated_rule=older) for name, check in _BASE.items()
    ]
    return [admin, *base, *(policy.RuleDefault(name, check, scope_types=["project"]) for name, check in RULES.items())]
