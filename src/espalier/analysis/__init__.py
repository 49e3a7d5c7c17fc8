"""Statistics of the consolidated tables. `best`, `best_configs` and `message_json` do not import scipy."""
