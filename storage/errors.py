"""The exception of this package."""


class StorageError(RuntimeError):
    """Something on disk is missing, damaged or in use; the message says what and what to do."""
