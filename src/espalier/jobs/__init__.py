"""What a job of the workflow is: its log, its failure record, its work. Only here is Snakemake's object known."""
