"""The report as data, text, pages and files."""
