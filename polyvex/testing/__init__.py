"""The conformance kit: what every encoder and every data set must do, as plain functions that raise AssertionError.

A plugin's whole contract test is one line::

    def test_contract():
        check_encoder(MyEncoder, MyEncoder.Options(image_size=64))
"""

from polyvex.testing.contracts import check_dataset, check_encoder
from polyvex.testing.upstream import check_upstream

__all__ = ["check_dataset", "check_encoder", "check_upstream"]
