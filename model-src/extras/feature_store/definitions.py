"""The features, for Feast: `python -m extras.feature_store load` registers them, and so does `feast apply`."""

from __future__ import annotations

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

from extras.feature_store.frames import FEATURES, FLOWER, TIME
from skeletons.classification.schema import SCHEMA

flower = Entity(name="flower", join_keys=[FLOWER], value_type=ValueType.INT64, description="One flower.")

measurements = FeatureView(
    name="measurements",
    entities=[flower],
    # A flower does not age: a measurement counts until a later one corrects it.
    ttl=timedelta(0),
    # The names are training's, not a copy of them, and the numbers those of the CSV: float32 is the model's affair.
    schema=[
        Field(name=name, dtype=Float64, description=column.description, tags=column.metadata)
        for name, column in SCHEMA.columns.items()
        if name in FEATURES
    ],
    source=FileSource(path="data/offline/measurements.parquet", timestamp_field=TIME),
    online=True,
)

flowers = FeatureService(
    name="flowers", features=[measurements], description="What a model of them is trained on and asked with."
)
