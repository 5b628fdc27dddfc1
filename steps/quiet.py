"""Keep the libraries' progress bars and hints out of the logs, which are JSON lines."""

import logging
import warnings


def quiet_libraries() -> None:
    """Silence what a person reading the log cannot act on."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it offers kernels that it would fetch from a hub
    warnings.filterwarnings("ignore", category=FutureWarning)
