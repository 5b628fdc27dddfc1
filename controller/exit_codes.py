"""Which exit code does an error give the command line?"""

from controller.failure import CLI_FAILED, CLI_NOT_FOUND, CLI_REFUSED
from controller.state import WorkspaceNotFoundError
from presets.errors import ConfigError, DataError, InvalidInput, KaiflowError, NotPermittedError
from presets.manifest import FileMissingError


def exit_code(error: Exception) -> int:
    """Return 3 for what is refused, 4 for what is not found or not permitted, else 1; as of a step that fails."""
    if isinstance(error, KaiflowError) and error.reason.endswith("NotFound"):
        return CLI_NOT_FOUND
    match error:
        case FileMissingError() | WorkspaceNotFoundError() | NotPermittedError():
            return CLI_NOT_FOUND
        case InvalidInput() | ConfigError() | DataError():
            return CLI_REFUSED
    return CLI_FAILED
