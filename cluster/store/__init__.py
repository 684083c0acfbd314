"""The durable job store. `open_store(url)` is the way in; `base.JobStore` is what it promises."""

from cluster.store.sql import open_store

__all__ = ["open_store"]
