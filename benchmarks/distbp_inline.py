"""distbp in one process on one core: `distbp.train` with `workers=0` and one shard."""

from __future__ import annotations

import os

from benchmarks.distbp_session import main
from benchmarks.peers.common import parse, parser

if __name__ == "__main__":
    known = parser()
    known.add_argument("--kernels", default="auto", help="as DISTBP_KERNELS")
    options = parse(known)
    os.environ["DISTBP_KERNELS"] = options.kernels
    main(workers=0, shards=1, options=options)
