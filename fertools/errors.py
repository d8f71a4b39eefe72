"""The errors that fertools raises on purpose.

The message names the file or value, says what is wrong and what to do about it. ProviderWarning is no error:
"auto" skips an execution provider that does not work.
"""


class FertoolsError(Exception):
    """Base of all errors raised by fertools."""


class ConfigError(FertoolsError):
    """An option's value makes no sense."""


class DataError(FertoolsError):
    """A data source cannot be read or lacks what is needed."""


class ImageError(FertoolsError):
    """An image or array cannot be used as a face."""


class ModelError(FertoolsError):
    """A model file is missing, not one of ours, truncated or altered."""


class ProviderError(FertoolsError):
    """A requested execution provider or device is not available."""


class ForkError(FertoolsError):
    """Something that does not survive a fork is used in the forked process."""


class RunError(FertoolsError):
    """A run folder is missing, unfinished or in the way."""


class WriteError(FertoolsError):
    """A file or folder cannot be written: for example, the disk is full or permission is missing."""


class GateError(FertoolsError):
    """A verification gate is broken."""


class ClusterError(FertoolsError):
    """A Ray cluster cannot be reached or cannot do the work."""


class WebError(FertoolsError):
    """A page for browsers cannot be made: its folder is in the way, or a part of it is missing."""


class MissingExtraError(FertoolsError, ImportError):
    """An optional package is not installed.

    Arguments:
        package: the package that could not be imported, e.g. ``"onnxruntime"``.
        extra: the extra of fertools that brings it, e.g. ``"cpu"``.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'fertools[{extra}]'")


class ProviderWarning(UserWarning):
    """An execution provider that "auto" tried does not work; another one is used."""
