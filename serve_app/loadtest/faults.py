"""What can go wrong with a load test itself, as opposed to the server under test.

LoadTestError           the test cannot run as it was asked for
+-- GoalError           a goal that cannot be read
+-- NothingDue          not one request would be sent in the time that is given
+-- BadAudio            an answer of status 200 whose body is not the sound that was asked for
"""


class LoadTestError(ValueError):
    """The test cannot run as it was asked for; the message is one line for the person who asked."""


class GoalError(LoadTestError):
    """A goal that cannot be read."""


class BadAudio(LoadTestError):
    """An answer of status 200 whose body is not the sound that was asked for."""


class NothingDue(LoadTestError):
    """Not one request would be sent in the time that is given."""
