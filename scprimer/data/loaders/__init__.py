"""Loaders: one function a data set, grouped by what the data are about, on top of one reader a file format.

A loader takes the folder with the verified files (and ``part`` where the set has parts) and returns AnnData, a dict or
a DataFrame; :func:`scprimer.data.load` adds the provenance.
"""
