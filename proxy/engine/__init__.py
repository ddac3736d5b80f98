"""How a cross-encoder runs: pairs cut and batched by tokens, back ends behind one Protocol, one worker thread."""
