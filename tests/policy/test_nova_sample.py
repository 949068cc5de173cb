"""Nova's full sample configuration, read by Hostler and by Nova itself: option by option the same.

It needs an environment with Nova, which ``python -m hostler.bench.vs_nova`` makes from PyPI and keeps.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hostler.bench.environments import clean, kept
from hostler.placement.oslo_conf.read import UnknownOption
from hostler.placement.policy.policy import NOVA_CONF, Policy

DRIVER = """
import json, os, re, sys, warnings
warnings.filterwarnings("ignore")
folder, sections = sys.argv[1], sys.argv[2].split(",")
from oslo_config import cfg, generator
import nova.conf, nova.conf.opts
try:
    from nova import config  # registers what oslo's libraries add
except ImportError:
    pass
options = cfg.ConfigOpts()
generator.register_cli_opts(options)
options(["--namespace", "nova.conf", "--namespace", "oslo.log", "--namespace", "oslo.messaging"])
with open(f"{folder}/sample.conf", "w") as out:
    generator.generate(options, out)
# Each default is set as the sample shows it, and some options to another value.
lines, section, changed = [], "DEFAULT", {
    "ram_weight_multiplier": "-1.5", "host_subset_size": "4", "isolated_hosts": "a,b", "weight_setting": "x=1.0,y=-2",
    "enabled_filters": "ComputeFilter,NUMATopologyFilter,ComputeFilter", "disk_allocation_ratio": "1.5",
    "max_instances_per_host": "$limit_of_instances", "default_schedule_zone": "$my_own_zone",
}
for line in open(f"{folder}/sample.conf"):
    if line.startswith("["):
        section = line.strip()[1:-1]
    found = re.match(r"#([a-z_0-9]+) = (.*)$", line)
    if found and section in sections and not re.search(r"[<>]", found[2]):
        line = f"{found[1]} = {changed.get(found[1], found[2])}\\n"
    lines.append(line)
    if line == "[DEFAULT]\\n":
        lines.append("my_own_zone = north\\n")
    if line == "[filter_scheduler]\\n":
        lines.append("limit_of_instances = 17\\n")
with open(f"{folder}/nova.conf", "w") as out:
    out.writelines(lines)
CONF = nova.conf.CONF
CONF.register_opt(cfg.StrOpt("my_own_zone"))
CONF.register_opt(cfg.IntOpt("limit_of_instances"), group="filter_scheduler")
CONF(["--config-file", f"{folder}/nova.conf"], project="nova", default_config_files=[])
read = {}
for section in sections:
    group = CONF if section == "DEFAULT" else CONF[section]
    read[section] = {name: group[name] for name in group if not isinstance(group[name], cfg.ConfigOpts.GroupAttr)}
json.dump(read, open(f"{folder}/read.json", "w"), default=str)
"""


@pytest.mark.parametrize("release", ["33.0.2", "34.0.0"])
def test_novas_sample_configuration_reads_as_nova_reads_it(release: str, tmp_path: Path) -> None:
    python = kept(f"nova-{release}") / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment with Nova {release}: python -m hostler.bench.vs_nova --release {release}")
    environment = clean() | {"OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"}
    subprocess.run([str(python), "-c", DRIVER, str(tmp_path), ",".join(NOVA_CONF)], env=environment, check=True)
    assert Policy.from_nova_conf(tmp_path / "sample.conf") == Policy.nova_default()
    with pytest.warns(UnknownOption) as caught:
        policy = Policy.from_nova_conf(tmp_path / "nova.conf")
    assert sorted(str(each.message).split("] ")[1].split(" ")[0].rstrip(";") for each in caught) == [
        "limit_of_instances",
        "my_own_zone",
    ]
    read = json.loads((tmp_path / "read.json").read_text())
    compared = 0
    for group in policy.options.groups():
        for name in group.option_names() if group.group in NOVA_CONF else ():
            compared += 1
            assert plain(getattr(group, name)) == plain(read[group.group][name]), (group.group, name)
    assert compared > 60


def plain(value: Any) -> Any:
    """A value as it is in JSON; lists of ratios and aliases as the numbers and objects that they are."""
    if hasattr(value, "to_words"):
        value = value.to_words()
    if isinstance(value, list | tuple):
        return [number(word) for word in value]
    return value


def number(word: str) -> Any:
    name, separator, text = word.partition("=")
    return (name, float(text)) if separator else word
