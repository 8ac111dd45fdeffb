"""distbp in one process on one core: `distbp.train` with `workers=0`, one shard where no row says more."""

from __future__ import annotations

from benchmarks.distbp_session import main
from benchmarks.peers.common import parse_ours
from benchmarks.rows import ALL_ROWS

if __name__ == "__main__":
    options = parse_ours()
    main(workers=0, shards=ALL_ROWS[options.row].shards_of_one_core, options=options)
