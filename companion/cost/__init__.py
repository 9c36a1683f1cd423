"""The chapter on cost: what the penalty and the engine take, as the benchmarks recorded it.

Each file of ``benchmarks/`` answers one question and appends its table to
``results/benchmarks/<question>``. Here those tables are read (``recordings``), fitted
(``growth``), printed (``tables``), drawn (``figures``) and glued into the text (``summary``).
Nothing is measured here, and ``figures`` is imported apart: to judge a claim draws nothing. A
machine is not equally fast at all times, so every recording counts: a number is the median over
the recordings of one device, beside the lowest and the highest.
"""
