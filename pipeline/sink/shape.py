"""What of a manifest is read again: a damaged one is told by the keys it lacks, before any of them is used."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_MODEL_FILES: Final = ("model.json", "model.parquet")
_FAULTS_NAMED: Final = 3

Count = Annotated[int, Field(ge=0)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")  # later versions may add keys


class _File(_Shape):
    path: str
    bytes: Count
    sha256: str


class _Part(_File):
    source_file: Count
    first_row: Count
    rows: Count


class _Manifest(_Shape):
    run_id: str
    sequence: Count
    previous: str | None
    job: dict[str, dict[str, Any] | None]
    parts: list[_Part]
    files: list[_File]
    result: dict[str, Any]


def faults(manifest: Any) -> str:
    """Return what is wrong with a parsed manifest, as `key: rule`; nothing if it can be used."""
    try:
        found = _Manifest.model_validate(manifest)
    except ValidationError as error:
        named = [f"{_key(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        more = [f"and {len(named) - _FAULTS_NAMED} more"] if len(named) > _FAULTS_NAMED else []
        return "; ".join([*named[:_FAULTS_NAMED], *more])
    listed = {file.path for file in found.files}
    return "; ".join(f"files: {name} is not among them" for name in _MODEL_FILES if name not in listed)


def _key(place: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
