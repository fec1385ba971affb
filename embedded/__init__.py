"""The real servers of the dev environment: started when needed, shared, and never left behind."""
