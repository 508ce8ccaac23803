"""The exceptions of this package."""


class StorageError(RuntimeError):
    """Something on disk is missing, damaged or in use; the message says what and what to do."""


class InUseError(StorageError):
    """Another process holds the run directory."""


class ExistsError(StorageError):
    """Something is already where something was to be written."""


class NoDatasetError(StorageError):
    """There is no synthetic dataset where one should be, or its metadata is damaged."""
