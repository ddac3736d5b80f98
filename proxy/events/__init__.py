"""The event log: what was asked, answered and said of it, as Parquet files."""
