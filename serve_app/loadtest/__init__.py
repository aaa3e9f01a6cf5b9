"""Load over HTTP against any OpenAI-compatible `/v1/audio/speech`, and what its listeners would have heard."""
