"""How a runner is started: as a process of this machine, or through the Ray Jobs API.

A launcher keeps nothing in memory that it needs: `handle(job, attempt)` can be worked out again, so another
dispatcher finds the runners of one that was killed.
"""

from distbp_service.launchers.base import ClusterAwayError, Handle, Launcher, LaunchError, Start
from distbp_service.launchers.local import LocalProcess
from distbp_service.launchers.ray_jobs import RayJobs

__all__ = ["ClusterAwayError", "Handle", "LaunchError", "Launcher", "LocalProcess", "RayJobs", "Start"]
