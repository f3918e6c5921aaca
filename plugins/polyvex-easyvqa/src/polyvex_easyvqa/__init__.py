"""polyvex plugin: the data set ``easy-vqa``, read out of an installable wheel."""

from collections.abc import Mapping

from polyvex.data.base import Dataset
from polyvex.hooks import hookimpl
from polyvex_easyvqa.dataset import EasyVqa, EasyVqaOptions

__all__ = ["EasyVqa", "EasyVqaOptions", "register_datasets"]


@hookimpl
def register_datasets() -> Mapping[str, type[Dataset]]:
    """Offer ``easy-vqa``."""
    return {"easy-vqa": EasyVqa}
