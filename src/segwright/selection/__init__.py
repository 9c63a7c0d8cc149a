"""From out-of-fold predictions to the model that is used: ensembles, the best candidate, postprocessing."""
