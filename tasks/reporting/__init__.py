"""What people see of a run: logs, progress, reports and alerts."""
