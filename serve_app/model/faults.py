"""What is wrong with a checkpoint directory."""


class CheckpointFault(ValueError):
    """A checkpoint that cannot be loaded; the message names every fault found."""
