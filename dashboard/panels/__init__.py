"""The state behind each panel, in bounded memory."""
