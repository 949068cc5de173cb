"""Tests of MessagePack-RPC: the protocol, the server and the clients."""
