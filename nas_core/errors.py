"""The one exception that means 'what you gave dfnas is wrong'."""


class InputError(ValueError):
    """Bad input of a user: one sentence that says what is wrong, where, and what to do.

    The command line prints the sentence without a traceback and exits with 2; tasks never retry it.
    """
