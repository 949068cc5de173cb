"""The options of section [hostler] in nova.conf and cinder.conf."""

from __future__ import annotations

from typing import Any, Final

GROUP: Final = "hostler"
MODES: Final = ("shadow", "canary", "live")
FALLBACKS: Final = ("always", "unsupported", "never")


def register(conf: Any) -> None:
    """Add the options to an oslo.config object. Adding them again changes nothing."""
    from oslo_config import cfg

    conf.register_opts(
        [
            cfg.StrOpt(
                "mode",
                default="shadow",
                choices=MODES,
                help="shadow: the stock scheduler decides, and Hostler's answers are compared with its. canary: "
                "Hostler decides a share of the requests. live: Hostler decides all.",
            ),
            cfg.StrOpt(
                "fallback",
                default="always",
                choices=FALLBACKS,
                help="When the stock scheduler decides in place of Hostler. always: where Hostler does not model the "
                "request, and where it fails. unsupported: only where it does not model it. never: the request is "
                "refused.",
            ),
            cfg.FloatOpt(
                "canary_percent",
                default=0.0,
                min=0.0,
                max=100.0,
                help="Share of the requests that Hostler decides in mode canary, chosen at random, in percent.",
            ),
            cfg.ListOpt(
                "canary_projects",
                default=[],
                help="Ids of the projects whose requests Hostler decides in mode canary, whatever the share.",
            ),
            cfg.FloatOpt(
                "state_max_age",
                default=0.0,
                min=0.0,
                help="Seconds for which the state of hosts that was read from the databases is used again. 0: changes "
                "are read for each request.",
            ),
            cfg.BoolOpt(
                "log_differences",
                default=True,
                help="Log each answer that differs from the stock scheduler's, with the reasons for both, in mode "
                "shadow.",
            ),
            cfg.StrOpt("metrics_host", default="127.0.0.1", help="Address of the page of metrics."),
            cfg.PortOpt(
                "metrics_port",
                help="Port of the page of metrics in Prometheus' text format; each worker takes the next free one "
                "of the 64 from here on. No page if it is not set.",
            ),
        ],
        group=GROUP,
    )
