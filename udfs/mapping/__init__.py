"""Mapping of foreign rows to clicks: other names, other formats of times and numbers, nested columns.

definition.py declares and checks a mapping file, adapter.py applies it to rows, columns.py and values.py read them.
"""
