"""Statistics of the consolidated tables. `selection`, `best_configs` and `message_json` do not import scipy."""
