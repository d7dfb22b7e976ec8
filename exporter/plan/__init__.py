"""The precision plan: schema, loading, presets and resolution."""
