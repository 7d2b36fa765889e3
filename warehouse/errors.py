"""The exceptions of the warehouse, each with a message for the person who runs it."""


class WarehouseError(Exception):
    """Base of every error that a user can cause or mend: the command line prints it as one line."""


class MalformedFile(WarehouseError):
    """A source file is not a NeuronRecord in any known form; the message says what was found, and where."""


class UnknownDataset(WarehouseError):
    """A dataset's name is not in the registry; the message lists the names that are."""


class InvalidRegistration(WarehouseError):
    """A TOML file that registers datasets does not say what it must."""


class UnknownUnit(WarehouseError):
    """A unit_id is not well formed, or the lake does not hold that unit."""


class SourceError(WarehouseError):
    """A source of files does not exist or cannot be reached."""


class LakeError(WarehouseError):
    """A lake is missing, not writable, or does not hold what was asked of it."""


class SourceMismatch(LakeError):
    """A lake already holds these units from another source."""


class QueryError(WarehouseError):
    """A SQL statement is wrong, or is one that the box around `warehouse sql` refuses."""


class StaleCatalogue(QueryError):
    """A statement reads a part that is gone, as when its shard was built again since the catalogue was."""
