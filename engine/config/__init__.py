"""Every key of a YAML: pydantic sections, read strictly. Imports neither torch nor the losses."""
