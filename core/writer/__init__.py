"""The one task that changes anything: takes a batch of commands, journals it, applies it, answers."""
