"""The one exception family: every message says what is wrong, where, the value found, and what to do."""


class AstroError(Exception):
    """Anything a user can cause and mend; commands print it as one line and exit with status 2."""


class ConfigError(AstroError):
    """An option or preset whose value cannot be used."""


class DataError(AstroError):
    """A document, question, tokenizer or indexed dataset that is not what it must be."""


class CheckpointError(AstroError):
    """A checkpoint that is missing, incomplete, corrupt, or not the model it claims to be."""


class UnreadableError(CheckpointError):
    """Weights that a file of a checkpoint cannot be read for now: nothing is wrong with what was made of the others."""


class KernelUnavailableError(AstroError):
    """A compiled operation asked for by name that this machine or build does not have."""


class ParallelError(AstroError):
    """A parallel layout that the model, the batch or the number of ranks does not allow."""
