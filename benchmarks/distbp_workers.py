"""distbp on two cores: `distbp.train` with `--workers auto`, or a number of them."""

from __future__ import annotations

from benchmarks.distbp_session import main
from benchmarks.peers.common import parse_ours
from benchmarks.rows import ALL_ROWS

if __name__ == "__main__":
    options = parse_ours(workers="auto")
    # A job's author cuts a batch into as many shards as it is worth; a fixed number of workers needs as many.
    least = options.workers if isinstance(options.workers, int) else 1
    main(workers=options.workers, shards=max(ALL_ROWS[options.row].shards, least), options=options)
