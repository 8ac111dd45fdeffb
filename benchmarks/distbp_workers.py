"""distbp on two cores: `distbp.train` with `--workers auto`, or a number of them."""

from __future__ import annotations

import os

from benchmarks.distbp_session import main
from benchmarks.peers.common import parse, parser
from benchmarks.rows import ROWS

if __name__ == "__main__":
    known = parser()
    known.add_argument("--workers", default="auto", type=lambda text: text if text == "auto" else int(text))
    known.add_argument("--kernels", default="auto", help="as DISTBP_KERNELS")
    options = parse(known)
    os.environ["DISTBP_KERNELS"] = options.kernels
    # A job's author cuts a batch into as many shards as it is worth; a fixed number of workers needs as many.
    least = options.workers if isinstance(options.workers, int) else 1
    main(workers=options.workers, shards=max(ROWS[options.row].shards, least), options=options)
