"""Prefect flows over the warehouse: wiring only. What a shard is and how it is done is in `warehouse`."""
