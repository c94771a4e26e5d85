"""What a user can get wrong.

    ValueError
    └── OmnivoxError
        ├── AudioError        a sound that cannot be read or answered
        ├── CheckpointError   a folder or file of weights that cannot be loaded
        ├── ConfigError       a setting or flag that makes no sense
        └── DataError         a data set, manifest or shard that cannot be used

Each message names the file, field or flag, what was found there, and what would be right.
"""


class OmnivoxError(ValueError):
    """Base of every error that a user's input can cause."""


class AudioError(OmnivoxError):
    """A sound that cannot be read or answered."""


class CheckpointError(OmnivoxError):
    """A folder or file of weights that cannot be loaded."""


class ConfigError(OmnivoxError):
    """A setting or flag that makes no sense."""


class DataError(OmnivoxError):
    """A data set, manifest or shard that cannot be used."""
