"""The outside world: hypervisors, storage, public clouds and OpenStack services, behind the core's driver protocols."""
