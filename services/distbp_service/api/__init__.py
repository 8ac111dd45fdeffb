"""The HTTP API: `create_app(store, config)` returns an ASGI application. It does not import ray.

config          the settings of an installation: folders, hosts, limits
errors          turns every error into {code, message, param, faults}
json_text       reads request bodies strictly
auth, limits    identify callers, and limit their use
routes          a route class that checks scope, rate and size before anything else
guard           wraps the application: Host, Origin, headers, counts, the last error handler
hub, streams    server-sent events
places, uploads, confine, prediction, downsample      used by the routes
routers/        the routes
"""

from distbp_service.api.app import create_app
from distbp_service.api.config import ApiConfig, Limits, check_protected, config_from_settings

__all__ = ["ApiConfig", "Limits", "check_protected", "config_from_settings", "create_app"]
