"""Making the book: run, stamp, export, check, build. Imports no science stack."""
