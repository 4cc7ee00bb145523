"""The one error a user can mend."""


class InputError(ValueError):
    """Bad input: the message names the flag or the file, and the fix.

    Commands print it without a traceback and exit with status 2.
    """
