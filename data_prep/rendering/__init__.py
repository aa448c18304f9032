"""Text and code drawn as pictures: fonts, layout, paper, perturbations, galleries."""
