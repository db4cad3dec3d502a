"""What profiling raises when a file or an option that the user gave is not usable."""


class InputError(Exception):
    """Bad input from outside; the message is one line that names the file or option and the fault.

    The command line prints it and exits with 2.
    """


class TrialError(Exception):
    """A trial cannot be run: the model refuses, or its replica is gone."""
