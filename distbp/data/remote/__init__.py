"""Files that lie elsewhere (on web servers, in buckets): which may be fetched, and how."""
