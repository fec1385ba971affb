"""Requests to APIs: repeated when it may help, sent nowhere else, and believed only when whole."""
