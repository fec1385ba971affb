"""What the Prefect server does by itself: runs started by events, states corrected, alerts sent."""
