"""MessagePack-RPC: messages, methods, sessions and the server. docs/rpc.md is the reference."""
