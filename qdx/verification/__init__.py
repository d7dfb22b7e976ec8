"""Verification: what is measured, judged and reported of a bundle; `verify` is the way through."""
