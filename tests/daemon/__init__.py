"""Tests of the daemon as users run it: a process with sockets and files."""
