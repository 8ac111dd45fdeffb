"""distbp in one process on one core: `distbp.train` with `workers=0` and one shard."""

from __future__ import annotations

from benchmarks.distbp_session import main
from benchmarks.peers.common import parse

if __name__ == "__main__":
    main(workers=0, shards=1, options=parse())
