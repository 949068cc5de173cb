"""Hostler inside the processes of OpenStack services. A package a service; what needs its code imports it there."""
