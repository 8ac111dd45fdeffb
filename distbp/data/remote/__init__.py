"""Named columns: tables as people have them (CSV, Parquet, frames), and how each column becomes numbers."""
