"""Column types of this schema: exact integers of base units."""

from typing import Any

from tortoise.fields.base import Field


class BaseUnitsField(Field[int], int):
    """NUMERIC(38,0): an exact count of base units (shares, prices, slopes, mixed ledger amounts), never a float."""

    SQL_TYPE = "NUMERIC(38,0)"

    def to_db_value(self, value: Any, instance: Any) -> int | None:
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise TypeError(f"{self.model_field_name} takes an int of base units, got {type(value).__name__}")

    def to_python_value(self, value: Any) -> int | None:
        return None if value is None else int(value)
