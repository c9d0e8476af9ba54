"""From a recipe or a model to artefacts: export, verification."""
