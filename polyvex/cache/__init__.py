"""The token cache: each image is encoded once, whatever is trained or ablated afterwards."""

from polyvex.cache.encode import CacheReport, TokenCache, fill_cache
from polyvex.cache.place import cache_root

__all__ = ["CacheReport", "TokenCache", "cache_root", "fill_cache"]
