"""The state behind the pages, one module per kind of record, in bounded memory."""
