"""Reading topics for the dashboard, bounded in time and memory."""
