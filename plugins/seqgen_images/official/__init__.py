"""Published image models: their checkpoints read, and run by the core's own loop."""
