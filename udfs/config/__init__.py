"""Reading configuration: YAML, overrides, variables, durations. Imports nothing of this project."""
