"""HTTP: server-sent events for browsers, JSON for whoever polls, and the dashboard. It only reads."""
