"""The notebook on the published numbers: a module a section, named after the section's anchor.

Each holds the calculation of its section, its tables and its figure. Functions take published
numbers, rows of a ledger or tensors, and none of them trains for longer than a few steps; what
they give as ``facts`` is glued into the text by its name. *Images* is the table of
:func:`companion.predictions.images`: a row a test image with what a recorded model said about it.
"""
