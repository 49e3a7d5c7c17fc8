"""Statistics of the consolidated tables. `best` and `best_configs` import no scipy, so reports may use them."""
