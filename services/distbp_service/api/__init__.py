"""The HTTP API: `create_app(store, config)` gives an ASGI application. Never a Ray driver: it imports no ray.

config          what an installation decides: folders, hosts, limits
errors          every refusal as {code, message, param, faults}
json_text       request bodies, read strictly
auth, limits    who calls, and how much
routes          a route that checks scope, rate and size before anything else
guard           around everything: Host, Origin, headers, counts, the last error handler
hub, streams    server-sent events
places, uploads, confine, prediction, downsample      what the routes stand on
routers/        the routes
"""

from distbp_service.api.app import create_app
from distbp_service.api.config import ApiConfig, Limits, check_protected, config_from_settings

__all__ = ["ApiConfig", "Limits", "check_protected", "config_from_settings", "create_app"]
