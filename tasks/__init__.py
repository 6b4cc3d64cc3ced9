"""The stages of the pipeline, one a module: a plain function, and one line that makes it a Prefect task."""
