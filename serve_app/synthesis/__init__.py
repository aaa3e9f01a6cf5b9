"""The engine: speech tokens, mel and samples for many streams at once."""
