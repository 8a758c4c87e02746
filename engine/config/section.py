"""What every section of a configuration shares: strict reading, and values that several sections know."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

# YAML 1.1 reads on and off as booleans
YAML_1_1 = BeforeValidator(lambda value: ("off", "on")[value] if isinstance(value, bool) else value)


class Section(BaseModel):
    """A part of a YAML file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def entries(cls) -> dict[str, Any]:
        """Return {key: annotation} of every key that a file may have here."""
        return {key: field.annotation for key, field in cls.model_fields.items()}


def _values_as_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected {{column: value or [values]}}, found {value!r}")
    lists = {str(column): wanted if isinstance(wanted, list) else [wanted] for column, wanted in value.items()}
    for column, wanted in lists.items():
        if not wanted or not all(isinstance(one, str | int | float) for one in wanted):
            raise ValueError(f"{column}: expected a text, a number or a list of them, found {wanted!r}")
    return lists


Where = Annotated[dict[str, list[str | int | float]], BeforeValidator(_values_as_lists)]  # index column -> a row has one of these
