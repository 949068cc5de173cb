"""The state machine: orders as values, the state that they change, and questions about it."""
