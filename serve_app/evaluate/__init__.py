"""How well a checkpoint speaks: `cosyserve evaluate`."""
