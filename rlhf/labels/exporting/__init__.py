"""A frozen dataset of a project's labels, with its datasheet."""
