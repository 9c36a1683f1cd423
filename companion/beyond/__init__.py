"""The notebook on what the paper leaves for later: a module a wish, named after it.

Each gives the comparisons of its section, as :class:`companion.beyond.effects.Section`, where all
that it needs is recorded.
"""
