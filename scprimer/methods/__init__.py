"""The methods of the book, exported from its notebooks by ``scprimer export``. Edit the notebooks, not this folder."""
