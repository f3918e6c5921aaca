"""The conformance kit: what every component must do, as plain functions that raise AssertionError.

A plugin's whole contract test is one line::

    def test_contract():
        check_encoder(MyEncoder, MyEncoder.Options(image_size=64))
"""

from polyvex.testing.contracts import check_dataset, check_encoder
from polyvex.testing.fusions import check_fusion
from polyvex.testing.imports import check_import
from polyvex.testing.metrics import check_metric
from polyvex.testing.positions import check_position_scheme
from polyvex.testing.reducers import check_reducer
from polyvex.testing.routers import check_router
from polyvex.testing.upstream import check_upstream

__all__ = [
    "check_dataset",
    "check_encoder",
    "check_fusion",
    "check_import",
    "check_metric",
    "check_position_scheme",
    "check_reducer",
    "check_router",
    "check_upstream",
]
