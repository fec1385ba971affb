"""Environments of the deployments."""
