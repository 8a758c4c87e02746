"""Several runs from one YAML, trained, evaluated and compared."""
