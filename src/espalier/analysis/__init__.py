"""Statistics of the consolidated tables. `model` needs scipy; the other modules do not, so reports may use them."""
