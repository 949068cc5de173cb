"""Move plans: which guests should move where so that a goal is reached. Every move is judged by the engine's rules."""
