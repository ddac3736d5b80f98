"""The dialects of rerank clients: each module turns one into a `RerankCall` and a `Reply` back into it. All pure."""
