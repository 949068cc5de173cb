"""The journal: every command in order, durable before it is answered, with snapshots."""
