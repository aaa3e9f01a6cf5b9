"""Seeds of requests that make the engine of `faulty_app` break."""

HANG = 666_001
OUT_OF_MEMORY = 666_002
BUG = 666_003
