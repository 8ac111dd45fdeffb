"""Launchers start runners: as processes of this machine, or through the Ray Jobs API.

A launcher needs no state in memory: `handle(job, attempt)` is a pure function, so a new dispatcher finds the
runners of a dispatcher that was killed.
"""

from distbp_service.launchers.base import ClusterAwayError, Handle, Launcher, LaunchError, Start
from distbp_service.launchers.local import LocalProcess
from distbp_service.launchers.ray_jobs import RayJobs

__all__ = ["ClusterAwayError", "Handle", "LaunchError", "Launcher", "LocalProcess", "RayJobs", "Start"]
