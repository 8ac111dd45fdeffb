"""Tables with named columns (CSV, Parquet, frames), and the encoding of each column as numbers."""
