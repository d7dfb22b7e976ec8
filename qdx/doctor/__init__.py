"""What is installed, what this machine computes, and what each target needs here.

Packages are imported in processes of their own: one that is broken is named with its error, even where it ends the
process that imports it.
"""

from qdx.doctor.examine import Examination, examine

__all__ = ["Examination", "examine"]
