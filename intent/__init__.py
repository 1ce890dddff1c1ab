"""The command `intent`: one entry point for the commands of jobs, training and dashboard."""
