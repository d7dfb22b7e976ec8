"""Measurements behind the choices and claims of the project; `README.md` holds the figures."""
