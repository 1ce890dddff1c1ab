"""Print the table of features: `python -m udfs.features`."""

from udfs.features.catalog import feature_table

if __name__ == "__main__":
    print(feature_table())
