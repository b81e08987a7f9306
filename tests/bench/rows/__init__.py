"""What is measured: one file a subject, with `rows(stage)`; being in this folder is being in the table."""
