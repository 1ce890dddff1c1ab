"""Configuration and command lines: YAML, overrides, variables, durations, and the basis of all commands.

Imports nothing of this project.
"""
