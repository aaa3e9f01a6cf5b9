"""What is wrong with a checkpoint directory."""


class CheckpointFault(ValueError):
    """A checkpoint that cannot be loaded; the message names every fault found."""


def first_line(error: Exception) -> str:
    """What an error says, without the paragraphs that torch and yaml add to it."""
    return (str(error).splitlines() or [type(error).__name__])[0]
