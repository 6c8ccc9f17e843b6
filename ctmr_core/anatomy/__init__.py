"""Vocabularies, tissues, regions, templates, parametric bodies, lesions and deformation."""
