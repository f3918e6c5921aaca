"""Keep libraries from talking over the progress bars of a command."""

import os


def quiet_libraries() -> None:
    """Turn off transformers' own progress bars and notes; errors and warnings of polyvex still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
