"""Tasks to read and to copy from; docs/tasks.md shows them."""
