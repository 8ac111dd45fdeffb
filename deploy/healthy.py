"""Health checks of containers, with the standard library only (a check runs every few seconds).

python -S healthy.py URL                   it answers with 200
python -S healthy.py FILE SECONDS          it was touched not longer ago than that
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from urllib.parse import urlsplit

TIMEOUT_S = 4.0


def answers(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_fresh(path: str, most_s: float) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime <= most_s  # noqa: PTH116
    except OSError:
        return False


if __name__ == "__main__":
    healthy = is_fresh(sys.argv[1], float(sys.argv[2])) if len(sys.argv) > 2 else answers(sys.argv[1])
    sys.exit(0 if healthy else 1)
