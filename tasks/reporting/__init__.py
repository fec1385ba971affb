"""What people and the Prefect server are told of a run: logs, progress, reports and events."""
