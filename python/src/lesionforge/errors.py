"""The one exception class for everything a user can cause."""


class InputError(ValueError):
    """A fault in what the user gave.

    The message is one sentence that names the file or row, says what is wrong and what to do.
    The command line prints it and ends with exit code 2.
    """

    exit_code = 2
