"""The proxy: wire, arms, engine, serving. Depends on `alerts`, which depends on `flags`, never the other way."""
